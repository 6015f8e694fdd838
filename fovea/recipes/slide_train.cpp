#include "fovea/recipes/slide_train.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "fovea/core/error.h"
#include "fovea/core/progress.h"
#include "fovea/core/rng.h"
#include "fovea/io/config.h"
#include "fovea/recipes/bag_fit.h"
#include "fovea/recipes/one_thread.h"
#include "fovea/train/logistic_regression.h"

namespace fovea::recipes {

namespace fs = std::filesystem;

namespace {
constexpr uint32_t kOrderStream = 92, kTileStream = 93;

torch::Tensor loss_of(const torch::Tensor& logits, const torch::Tensor& label) {
  if (logits.size(1) == 1) return torch::binary_cross_entropy_with_logits(logits.squeeze(1), label.to(logits.dtype()));
  return torch::nn::functional::cross_entropy(logits, label);
}

// Mean and deviation of each feature; every training slide counts the same, however large.
void standardise(SlideInputs& inputs, SlideBags& bags, const std::vector<int64_t>& train) {
  torch::Tensor sum, squares;
  for (const int64_t r : train) {
    const auto x = bags.slide(r).features.to(torch::kDouble);
    const auto mean = x.mean(0), square = x.square().mean(0);
    sum = sum.defined() ? sum + mean : mean, squares = squares.defined() ? squares + square : square;
  }
  const auto mean = sum / double(train.size());
  const auto deviation = (squares / double(train.size()) - mean.square()).clamp_min(0).sqrt();
  inputs.mean = {mean.data_ptr<double>(), mean.data_ptr<double>() + mean.numel()};
  for (int64_t i = 0; i < deviation.size(0); ++i) inputs.deviation.push_back(std::max(deviation[i].item<double>(), 1e-6));
}

std::string model_card(const data::SlideTable& table, const SlideTrainResult& result, const SlideModel& model, size_t learnt_from) {
  std::string card = "# " + table.name + "\n\nA network of whole slides trained by Fovea.\n\n";
  if (table.simulated) card += "**Learnt on simulated slides: of no use for real ones.**\n\n";
  card += "- Encoder of the tiles: " + (model.inputs.encoder.empty() ? std::string("not named by the feature files") : model.inputs.encoder) + "\n";
  card += "- Training slides: " + std::to_string(learnt_from) + "\n- Optimizer steps: " + std::to_string(result.training.step) + "\n";
  for (const auto& score : result.scores) card += "- " + score.name + ": " + std::to_string(score.value) + "\n";
  return card + "\nNot a medical device. Weights may carry traces of the training data (membership inference is not prevented).\n";
}

io::Json metrics_json(const SlideReport& report) {
  io::Json json = io::Json::object();
  for (const auto& method : report.methods)
    for (const auto& score : method.scores) json[method.name][score.name] = {{"value", score.value}, {"low", score.interval.low}, {"high", score.interval.high}};
  json["slides"] = report.predictions.slide_ids.size();
  return json;
}
}  // namespace

SlideBags::SlideBags(const data::SlideTable& table, const fs::path& features, uint64_t max_bytes) : kept_(table.slides.size()), max_bytes_(max_bytes) {
  for (const auto& slide : table.slides) files_.push_back(data::find_slide_features(features, slide.slide_id));
}

const data::SlideFeatures& SlideBags::slide(int64_t row) {
  auto& kept = kept_[size_t(row)];
  if (kept) return *kept;
  last_ = data::read_slide_features(files_[size_t(row)]);
  bytes_ += uint64_t(last_.features.numel()) * 4;
  if (bytes_ > max_bytes_) {
    bytes_ -= uint64_t(last_.features.numel()) * 4;
    return last_;
  }
  kept = std::move(last_);
  return *kept;
}

FittedSlides fit_slides(const data::SlideTable& table, SlideBags& bags, const data::SlideSplit& split, const SlideConfig& config, train::RunFolder& folder, bool resume,
                        const std::vector<std::string>& command) {
  FittedSlides out;
  SlideInputs& inputs = out.model.inputs;
  inputs.name = table.name, inputs.simulated = table.simulated, inputs.classes = table.classes;
  const auto& first = bags.slide(split.train.front());
  const int64_t width = first.features.size(1);
  inputs.encoder = first.encoder, inputs.tile_px = first.tile_px.value_or(0), inputs.um_per_pixel = first.um_per_pixel.value_or(0);
  std::vector<std::vector<int64_t>> of_class(table.classes.size());
  Progress reading("features", int64_t(split.train.size()));
  for (const int64_t r : split.train) {
    const auto& one = bags.slide(r);
    if (one.features.size(1) != width)
      throw ArgumentError("train: " + bags.files()[size_t(r)].string() + " has " + std::to_string(one.features.size(1)) + " features a tile, " + bags.files()[size_t(split.train.front())].string() + " " + std::to_string(width));
    of_class[size_t(table.slides[size_t(r)].label)].push_back(r);
    reading.advance();
  }
  reading.finish();
  for (size_t c = 0; c < of_class.size(); ++c)
    if (of_class[c].empty()) throw ArgumentError("train: no training slide is of class '" + table.classes[c] + "'");
  if (config.standardise) standardise(inputs, bags, split.train);
  out.model.config = config.bag_config(width, int64_t(table.classes.size()));
  out.model.network = models::make_bag_network(out.model.config, config.train.seed);
  auto& network = *out.model.network;

  std::optional<OneThread> one_thread;  // small products gain nothing from threads that wait for each other
  if (width <= 128) one_thread.emplace();
  auto resume_command = command;
  if (!resume) resume_command.push_back("--resume");
  train::Trainer trainer(network, config.train, folder, train::shell_line(resume_command));
  if (resume) trainer.resume();
  const train::BatchSource source = [&](int64_t epoch, int64_t index) {
    Rng rng(config.train.seed, uint32_t(epoch), uint32_t(index), kOrderStream);
    const auto& pool = config.balance_classes ? of_class[size_t(rng.below(of_class.size()))] : split.train;
    train::Batch batch;
    batch.label = torch::tensor({pool[size_t(rng.below(pool.size()))], epoch, index}, torch::kLong);
    return batch;
  };
  const train::LossFunction loss = [&](const train::Batch& batch) {
    const int64_t r = batch.label[0].item<int64_t>();
    auto rows = out.model.rows(bags.slide(r), bags.files()[size_t(r)].string());
    if (config.max_tiles > 0 && rows.size(0) > config.max_tiles) {
      Rng rng(config.train.seed, uint32_t(batch.label[1].item<int64_t>()), uint32_t(batch.label[2].item<int64_t>()), kTileStream);
      std::vector<int64_t> some;
      for (int64_t i = 0; i < config.max_tiles; ++i) some.push_back(int64_t(rng.below(uint64_t(rows.size(0)))));
      rows = rows.index_select(0, torch::tensor(some));
    }
    const auto label = torch::tensor({table.slides[size_t(r)].label}, torch::kLong), offsets = one_bag(rows.size(0));
    const auto answer = network.forward(rows, offsets);
    auto loss = loss_of(answer.logits, label);
    if (answer.instance_logits.defined() && config.instance_weight > 0)
      loss = (1 - config.instance_weight) * loss +
             config.instance_weight * train::clam_instance_loss(answer.scores, answer.instance_logits, offsets, label, {.rows = config.instances, .subtyping = config.subtyping});
    return loss;
  };
  const train::Validation validation = [&] {
    double sum = 0, right = 0;
    for (const int64_t r : split.validation) {
      const auto rows = out.model.rows(bags.slide(r), bags.files()[size_t(r)].string());
      const auto label = torch::tensor({table.slides[size_t(r)].label}, torch::kLong);
      const auto logits = network.forward(rows, one_bag(rows.size(0))).logits;
      sum += loss_of(logits, label).item<double>();
      right += (logits.size(1) == 1 ? int64_t(logits.item<double>() > 0) : logits.argmax(1).item<int64_t>()) == table.slides[size_t(r)].label;
    }
    return train::Metrics{{"loss", sum / double(split.validation.size())}, {"accuracy", right / double(split.validation.size())}};
  };
  out.training = trainer.run(source, loss, split.validation.empty() ? train::Validation{} : validation);
  trainer.use_best_weights();
  network.eval();
  return out;
}

SlidePredictions simplest_slides(const data::SlideTable& table, SlideBags& bags, const std::vector<int64_t>& train, const std::vector<int64_t>& scored, bool maximum) {
  const auto pooled = [&](const std::vector<int64_t>& rows) {
    std::vector<torch::Tensor> all;
    for (const int64_t r : rows) {
      const auto x = bags.slide(r).features.to(torch::kDouble);
      all.push_back(maximum ? std::get<0>(x.max(0)) : x.mean(0));
    }
    return torch::stack(all);
  };
  const auto learnt = pooled(train);
  const auto mean = learnt.mean(0), deviation = learnt.std(0, /*unbiased=*/false).clamp_min(1e-9);
  std::vector<int64_t> labels;
  for (const int64_t r : train) labels.push_back(table.slides[size_t(r)].label);
  const auto fitted = train::fit_logistic((learnt - mean) / deviation, torch::tensor(labels, torch::kLong), int64_t(table.classes.size()), 0.1);
  SlidePredictions out;
  for (const int64_t r : scored) {
    const auto& slide = table.slides[size_t(r)];
    out.slide_ids.push_back(slide.slide_id), out.case_ids.push_back(slide.case_id), out.labels.push_back(slide.label);
  }
  out.probabilities = fitted.logits((pooled(scored) - mean) / deviation).softmax(1).contiguous();
  return out;
}

SlideTrainResult train_slides(const data::SlideTable& table, const SlideConfig& config, const SlideTrainOptions& options) {
  const io::Json resolved = io::to_json(config);
  train::require_new_or_same_run(options.run, resolved, options.resume);
  SlideReport report;
  report.split = config.splits.empty() ? data::draw_slide_split(table, options.fold, config.validation_share, config.train.seed) : data::read_slide_split(config.splits, table);
  if (!config.splits.empty() && options.fold) throw ArgumentError("train: --fold beside splits=" + config.splits + ", which says itself who is held out; give one of them");
  SlideBags bags(table, config.features);

  train::RunFolder folder(options.run);
  folder.write_config(resolved);
  auto files = bags.files();
  files.push_back(table.file);
  folder.write_manifest({config.train.seed, options.command, files, {}});
  SlideTrainResult result;
  const auto fitted = fit_slides(table, bags, report.split, config, folder, options.resume, options.command);
  result.training = fitted.training;
  if (result.training.reason == train::StopReason::kInterrupted) return result;

  report.table = &table, report.config = &config, report.model = &fitted.model, report.run = options.run;
  report.held_out = !report.split.held_out.empty();
  const auto& scored = report.held_out ? report.split.held_out : report.split.validation;
  if (!scored.empty()) {
    report.predictions = predict_slides(fitted.model, table, scored, config.features);
    report.methods.push_back({"network", score_slides(report.predictions)});
    auto learnt = report.split.train;
    learnt.insert(learnt.end(), report.split.validation.begin(), report.split.validation.end());
    if (!report.held_out) learnt = report.split.train;
    report.methods.push_back({"logistic regression on a slide's mean feature", score_slides(simplest_slides(table, bags, learnt, scored, /*maximum=*/false))});
    report.methods.push_back({"logistic regression on a slide's largest features", score_slides(simplest_slides(table, bags, learnt, scored, /*maximum=*/true))});
    result.scores = report.methods.front().scores;
    write_slide_predictions(options.run / "predictions.csv", report.predictions, table.classes);
    folder.write_metrics(metrics_json(report));
  }
  fitted.model.save(options.run / "model", model_card(table, result, fitted.model, report.split.train.size()));
  result.model = options.run / "model", result.report = options.run / "report.html";
  write_slide_report(result.report, report);
  return result;
}

}  // namespace fovea::recipes
