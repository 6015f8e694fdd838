#include "fovea/recipes/segment_train.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "fovea/core/error.h"
#include "fovea/core/progress.h"
#include "fovea/data/case_cache.h"
#include "fovea/infer/model_folder.h"
#include "fovea/infer/import_weights.h"
#include "fovea/infer/network_json.h"
#include "fovea/infer/weights.h"
#include "fovea/io/config.h"
#include "fovea/io/image.h"
#include "fovea/models/registry.h"
#include "fovea/ops/parallel.h"
#include "fovea/recipes/evaluate.h"
#include "fovea/recipes/hidden_picture.h"
#include "fovea/recipes/segment_predict.h"
#include "fovea/recipes/segment_report.h"
#include "fovea/train/segmentation_metrics.h"
#include "fovea/train/stop_signal.h"

namespace fovea::recipes {

namespace fs = std::filesystem;

namespace {
struct Cases {
  std::vector<data::Case> train, held_out;
};

Cases split_cases(const data::Dataset& dataset, const std::optional<int64_t>& fold) {
  if (!fold) return {dataset.training, {}};
  const auto folds = data::splits(dataset);
  if (*fold < 0 || *fold >= int64_t(folds.size()))
    throw ArgumentError("train: --fold " + std::to_string(*fold) + ", expected 0 to " + std::to_string(folds.size() - 1) + " or all");
  return {data::select_cases(dataset, folds[*fold].train), data::select_cases(dataset, folds[*fold].val)};
}

View<const int32_t, 1> flat(const torch::Tensor& t) { return View<const int32_t, 1>::contiguous(t.data_ptr<int32_t>(), {t.numel()}); }

// Dice on the network's grid over the held-out cases, voxels of all cases together: quick enough for every epoch.
train::Metrics validate(const models::Network& network, const SegmentConfig& config, data::CaseCache& cases) {
  const int64_t classes = config.plan.classes(), n = std::min(cases.size(), config.validation_cases);
  std::vector<train::OverlapCounts> sum(classes);
  const infer::WindowNetwork forward = [&](const torch::Tensor& windows) { return network->forward(windows); };
  for (int64_t i = 0; i < n && !train::stop_requested(); ++i) {
    const auto one = cases.get(i);
    const auto labels = infer::predict_labels(one->image, forward, config.predict).to(torch::kInt32);
    const auto counts = train::overlap_counts(flat(labels), flat(one->label.to(torch::kInt32).contiguous()), classes);
    for (int64_t k = 0; k < classes; ++k) sum[k] += counts[k];
  }
  train::Metrics metrics;
  double mean = 0;
  for (int64_t k = 1; k < classes; ++k) {
    const double dice = sum[k].dice();
    metrics["dice/" + config.plan.labels[k].name] = dice;
    mean += (std::isnan(dice) ? 0 : dice) / double(classes - 1);
  }
  metrics["dice"] = mean;
  return metrics;
}

// Patches in the order that the trainer asks for; the loader's threads run ahead. Without labels: a batch's label says
// which batch it is, and what is hidden hangs on that.
train::BatchSource source_of(data::PatchLoader& loader, bool labels) {
  return [&loader, labels, started = false](int64_t epoch, int64_t index) mutable {
    if (!started) loader.start(uint32_t(epoch), uint32_t(index)), started = true;
    auto batch = loader.next();
    FOVEA_CHECK(batch.epoch == epoch && batch.index == index, "the loader is not where the trainer is");
    return train::Batch{batch.image, labels ? batch.label : torch::tensor({epoch, index}), batch.ids};
  };
}

constexpr uint32_t kHideStream = 101, kHeldOutStream = 102;

// The patches of n images that stay visible: [n,K].
torch::Tensor draw_visible(const models::MaskedAutoencoderImpl& network, const PretrainConfig& config, int64_t n, Rng rng) {
  std::vector<torch::Tensor> masks;
  for (int64_t i = 0; i < n; ++i) masks.push_back(torch::tensor(data::draw_kept_patches(network.grid(), config.ratio, config.mask, rng)));
  return torch::stack(masks);
}

torch::Tensor rebuild_loss(models::MaskedAutoencoderImpl& network, const torch::Tensor& images, const torch::Tensor& visible, const PretrainConfig& config) {
  return models::hidden_patch_loss(network, images, network.rows(images, visible), visible, config.normalise);
}

// Mean error of hidden patches of the held-out cases, the same patch and mask of each every time.
train::Metrics rebuild_error(models::MaskedAutoencoderImpl& network, const SegmentConfig& config, data::PatchLoader& held_out) {
  const torch::NoGradGuard no_grad;
  const bool was_training = network.is_training();
  network.eval();
  double sum = 0;
  for (int64_t i = 0; i < config.validation_cases; ++i) {
    const auto batch = held_out.get(0, uint32_t(i));
    const auto visible = draw_visible(network, config.pretrain, batch.image.size(0), Rng(config.train.seed, 0, uint32_t(i), kHeldOutStream));
    sum += rebuild_loss(network, batch.image, visible, config.pretrain).item<double>();
  }
  network.train(was_training);
  return {{"error", sum / double(config.validation_cases)}};
}

// A held-out patch with its hidden part rebuilt.
report::Image picture_of(models::MaskedAutoencoderImpl& network, const SegmentConfig& config, data::PatchLoader& held_out) {
  const torch::NoGradGuard no_grad;
  network.eval();
  const auto image = held_out.get(0, 0).image.slice(0, 0, 1);
  const auto visible = draw_visible(network, config.pretrain, 1, Rng(config.train.seed, 0, 0, kHeldOutStream));
  auto rows = network.rows(image, visible);
  if (config.pretrain.normalise) {  // such rows tell the shape of a patch; its own mean and deviation bring it back
    const auto patches = nn::patch_rows(image, network.patch());
    rows = rows * patches.std(-1, /*unbiased=*/true, /*keepdim=*/true) + patches.mean(-1, true);
  }
  const auto& grid = network.grid();
  const auto shown = torch::zeros({network.tokens()}, torch::kBool).scatter(0, visible[0], true).view({grid[0], grid[1], grid[2]});
  return hidden_and_rebuilt(image[0][0], shown, network.volume(rows)[0][0]);
}

// Weights to begin with; says which of the network's are not among them.
void begin_from(const fs::path& start, models::NetworkImpl& network, bool pretrains) {
  io::TensorMap weights = fs::is_directory(start) ? infer::open_model(start).weights : infer::read_weights(start);
  if (!pretrains) weights = infer::encoder_weights(std::move(weights));
  const auto report = infer::load_weights(network, weights, start.string(), infer::Coverage::kAny);
  std::string line = "begins from " + std::to_string(report.loaded) + " tensors of " + start.string();
  if (!report.missing.empty()) line += "; " + std::to_string(report.missing.size()) + " are random: " + report.missing.front() + (report.missing.size() > 1 ? ", ..." : "");
  print_line(line);
}

std::string model_card(const data::Dataset& dataset, const SegmentConfig& config, const Cases& cases, const SegmentTrainResult& result) {
  std::string card = (config.pretrains() ? "# Pretrained without labels on " : "# Segmentation of ") + dataset.name + "\n\nA " + config.plan.network + " trained by Fovea.\n\n";
  card += "- Training cases: " + std::to_string(cases.train.size()) + (cases.train.size() == 1 ? " (one subject: expect no more than that)" : "") + "\n";
  card += "- Held-out cases: " + std::to_string(cases.held_out.size()) + "\n";
  card += "- Optimizer steps: " + std::to_string(result.training.step) + ", best at " +
          (result.training.best_step ? std::to_string(*result.training.best_step) : "the end (no validation)") + "\n";
  if (config.pretrains()) card += "- Hidden of each image: " + std::to_string(config.pretrain.ratio) + " of its patches. Encoder and decoder, to begin a training from; labels nothing.\n";
  else card += "- Classes:";
  for (const auto& label : config.plan.labels) card += config.pretrains() ? "" : " " + label.name + ";";
  card += "\n\nNot a medical device. Weights may carry traces of the training data (membership inference is not prevented).\n";
  return card;
}

// Each held-out case on its own grid, from its files, and the metrics over all of them.
Evaluation evaluate_held_out(const data::Dataset& dataset, const Cases& cases, const fs::path& model, const fs::path& folder) {
  const auto segmenter = Segmenter::load(model);
  fs::create_directories(folder);
  Evaluation evaluation;
  evaluation.labels = evaluation_labels(dataset.labels);
  evaluation.options.ignore_label = dataset.ignore_label;
  Progress bar("held-out cases", int64_t(cases.held_out.size()));
  for (const data::Case& one : cases.held_out) {
    const fs::path output = folder / (one.id + ".nii.gz");
    predict_case(segmenter, {one.id, one.images}, output, {});
    evaluation.cases.push_back(evaluate_case(output, one.label, evaluation.labels, evaluation.options));
    bar.advance();
  }
  return evaluation;
}
}  // namespace

std::vector<EvaluationLabel> evaluation_labels(const std::vector<data::LabelClass>& classes) {
  std::vector<EvaluationLabel> labels;
  for (size_t k = 1; k < classes.size(); ++k) labels.push_back({classes[k].name, {classes[k].values.begin(), classes[k].values.end()}});
  return labels;
}

SegmentTrainResult train_segmentation(const data::Dataset& dataset, const SegmentConfig& config, const SegmentTrainOptions& options) {
  Cases cases = split_cases(dataset, options.fold);
  if (config.pretrains())
    for (auto* group : {&cases.train, &cases.held_out})
      for (data::Case& one : *group) one.label.clear();
  else if (!dataset.is_labelled())
    throw IoError(dataset.root, "has no labels to learn; --pretrain learns without");
  const io::Json resolved = io::to_json(config);
  train::require_new_or_same_run(options.run, resolved, options.resume);
  const auto network_config = infer::network_from_json({{"network", config.plan.network}, {"config", config.plan.network_config}}, "plan");
  const models::Network network = models::make_network(network_config, config.train.seed);
  if (!options.start.empty()) begin_from(options.start, *network, config.pretrains());
  auto* autoencoder = config.pretrains() ? dynamic_cast<models::MaskedAutoencoderImpl*>(network.get()) : nullptr;
  const auto& patch = config.plan.patch_size;
  network->check_input(torch::empty({config.train.batch_size, config.plan.channels(), patch[0], patch[1], patch[2]}, torch::kMeta));
  train::RunFolder folder(options.run);
  SegmentTrainResult result;
  result.report = options.run / "report.html";
  if (fs::exists(options.run / "model") && fs::exists(result.report)) {  // resume of a finished run
    result.model = options.run / "model";
    if (fs::exists(options.run / "validation/summary.json")) result.summary = options.run / "validation/summary.json";
    return result;
  }
  folder.write_config(resolved);
  std::vector<fs::path> files;
  for (const data::Case& one : cases.train) {
    files.insert(files.end(), one.images.begin(), one.images.end());
    if (!one.label.empty()) files.push_back(one.label);
  }
  if (!options.start.empty()) files.push_back(fs::is_directory(options.start) ? options.start / "weights.safetensors" : options.start);
  folder.write_manifest({config.train.seed, options.command, files, {}});

  auto loader_options = config.loader;
  loader_options.seed = config.train.seed;
  loader_options.batches_per_epoch = config.train.steps_per_epoch * config.train.accumulate;
  data::PatchLoader loader(cases.train, config.plan, config.augment, loader_options);
  data::CaseCache held_out(cases.held_out, config.plan, config.loader.cache_bytes);

  auto resume_command = options.command;
  if (!options.resume) resume_command.push_back("--resume");
  train::Trainer trainer(*network, config.train, folder, train::shell_line(resume_command));
  if (options.resume) trainer.resume();
  std::optional<data::PatchLoader> held_out_patches;
  if (config.pretrains() && !cases.held_out.empty()) {
    auto one_each = loader_options;
    one_each.batch_size = 1, one_each.foreground_fraction = 0;
    held_out_patches.emplace(cases.held_out, config.plan, data::augment_preset("none"), one_each);
  }
  const train::Validation validation = [&] { return config.pretrains() ? rebuild_error(*autoencoder, config, *held_out_patches) : validate(network, config, held_out); };
  const train::LossFunction loss = [&](const train::Batch& batch) {
    if (config.pretrains()) {
      const Rng rng(config.train.seed, uint32_t(batch.label[0].item<int64_t>()), uint32_t(batch.label[1].item<int64_t>()), kHideStream);
      return rebuild_loss(*autoencoder, batch.image, draw_visible(*autoencoder, config.pretrain, batch.image.size(0), rng), config.pretrain);
    }
    return train::deep_supervision_loss(network->forward_scales(batch.image), batch.label, config.loss);
  };
  result.training = trainer.run(source_of(loader, !config.pretrains()), loss, cases.held_out.empty() ? train::Validation{} : validation);
  if (result.training.reason == train::StopReason::kInterrupted) return result;

  trainer.use_best_weights();
  const fs::path model = options.run / "model";
  const io::Json recipe = {{"recipe", config.pretrains() ? "pretrain" : "segment"}, {"plan", io::to_json(config.plan)}, {"predict", io::to_json(config.predict)}};
  infer::save_model(model, *network, {infer::network_to_json(network_config), recipe}, model_card(dataset, config, cases, result));
  result.model = model;
  SegmentReport report;
  report.run = options.run;
  if (held_out_patches) report.rebuilt = picture_of(*autoencoder, config, *held_out_patches);
  if (!cases.held_out.empty() && !config.pretrains()) {
    report.evaluation = evaluate_held_out(dataset, cases, model, options.run / "validation");
    result.summary = options.run / "validation/summary.json";
    write_summary(result.summary, *report.evaluation);
  }
  write_segment_report(result.report, report);
  return result;
}

}  // namespace fovea::recipes
