#include "fovea/recipes/slide_model.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "fovea/core/error.h"
#include "fovea/core/progress.h"
#include "fovea/data/torch_tensor.h"
#include "fovea/infer/import_bag_network.h"
#include "fovea/infer/model_folder.h"
#include "fovea/infer/weights.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/config.h"
#include "fovea/io/csv.h"
#include "fovea/recipes/bag_fit.h"
#include "fovea/train/classification_metrics.h"

namespace fovea::recipes {

namespace fs = std::filesystem;

namespace {
double auc_of(const SlidePredictions& p, const std::vector<size_t>& some) {
  const int64_t classes = p.probabilities.size(1);
  double sum = 0;
  for (int64_t c = classes == 2 ? 1 : 0; c < classes; ++c) {
    std::vector<double> score;
    std::vector<bool> positive;
    const auto column = p.probabilities.accessor<double, 2>();
    for (const size_t i : some) score.push_back(column[int64_t(i)][c]), positive.push_back(p.labels[i] == c);
    sum += train::roc_auc(score, positive);
  }
  return classes == 2 ? sum : sum / double(classes);
}

double accuracy_of(const SlidePredictions& p, const std::vector<size_t>& some) {
  const auto predicted = p.probabilities.argmax(1);
  double right = 0;
  for (const size_t i : some) right += predicted[int64_t(i)].item<int64_t>() == p.labels[i];
  return right / double(some.size());
}
}  // namespace

SlideModel SlideModel::load(const fs::path& path) {
  const auto opened = infer::open_model(path);
  if (opened.recipe.value("recipe", "") != "slide") throw ArgumentError(path.string() + ": no model of the recipe 'slide'");
  const std::string where = (path / "config.json").string();
  SlideModel model;
  model.config = infer::bag_network_from_json(opened.network, where);
  model.inputs = io::from_json<SlideInputs>(opened.recipe.at("inputs"), where);
  model.network = models::make_bag_network(model.config);
  infer::load_weights(*model.network, opened.weights, opened.weights_path.string());
  model.network->eval();
  const auto classes = int64_t(model.inputs.classes.size()), outputs = model.network->outputs(), width = int64_t(model.inputs.mean.size());
  if (std::max<int64_t>(outputs, 2) != classes || model.inputs.deviation.size() != model.inputs.mean.size() || (width > 0 && width != model.network->features()))
    throw IoError(path, "its classes or features are not those of its network");
  return model;
}

void SlideModel::save(const fs::path& path, const std::string& model_card) const {
  infer::ModelDescription description;
  description.network = infer::bag_network_to_json(config);
  description.recipe = {{"recipe", "slide"}, {"inputs", io::to_json(inputs)}};
  infer::save_model(path, *network, description, model_card);
}

torch::Tensor SlideModel::rows(const data::SlideFeatures& slide, const std::string& where) const {
  const int64_t width = slide.features.size(1);
  if (width != network->features())
    throw ArgumentError(where + ": its tiles have " + std::to_string(width) + " features, the model takes " + std::to_string(network->features()) +
                        (inputs.encoder.empty() ? "" : " (of '" + inputs.encoder + "')"));
  if (inputs.mean.empty()) return slide.features;
  return (slide.features - torch::tensor(inputs.mean, torch::kFloat32)) / torch::tensor(inputs.deviation, torch::kFloat32);
}

SlideAnswer answer_slide(const SlideModel& model, const torch::Tensor& rows) {
  const torch::NoGradGuard no_grad;
  SlideAnswer out;
  out.probabilities = bag_probabilities(*model.network, rows);
  out.predicted = out.probabilities.argmax().item<int64_t>();
  const auto weights = model.network->weights(rows, one_bag(rows.size(0)));
  out.weights = weights.select(1, weights.size(1) > 1 ? out.predicted : 0).contiguous();
  const auto w = out.weights.to(torch::kDouble).clamp_min(1e-300);
  out.effective_tiles = (-(w * w.log()).sum()).exp().item<double>();
  return out;
}

SlidePredictions predict_slides(const SlideModel& model, const data::SlideTable& table, const std::vector<int64_t>& rows, const fs::path& features) {
  SlidePredictions out;
  std::vector<torch::Tensor> probabilities;
  std::vector<int64_t> tiles;
  std::vector<double> effective;
  Progress bar("slides", int64_t(rows.size()));
  for (const int64_t r : rows) {
    const auto& slide = table.slides[size_t(r)];
    const auto path = data::find_slide_features(features, slide.slide_id);
    const auto seen = model.rows(data::read_slide_features(path), path.string());
    const auto answer = answer_slide(model, seen);
    out.slide_ids.push_back(slide.slide_id), out.case_ids.push_back(slide.case_id), out.labels.push_back(slide.label);
    probabilities.push_back(answer.probabilities.to(torch::kDouble)), tiles.push_back(seen.size(0)), effective.push_back(answer.effective_tiles);
    bar.advance();
  }
  bar.finish();
  out.probabilities = torch::stack(probabilities), out.tiles = torch::tensor(tiles, torch::kLong), out.effective_tiles = torch::tensor(effective, torch::kDouble);
  return out;
}

void write_slide_predictions(const fs::path& file, const SlidePredictions& p, const std::vector<std::string>& classes) {
  std::string text = "slide_id,case_id,predicted";
  for (const std::string& name : classes) text += "," + io::csv_cell("p_" + name);
  text += ",tiles,effective_tiles\n";
  const auto predicted = p.probabilities.argmax(1);
  for (size_t i = 0; i < p.slide_ids.size(); ++i) {
    const auto at = int64_t(i);
    text += io::csv_cell(p.slide_ids[i]) + "," + io::csv_cell(p.case_ids[i]) + "," + io::csv_cell(classes[size_t(predicted[at].item<int64_t>())]);
    for (int64_t c = 0; c < p.probabilities.size(1); ++c) text += "," + io::csv_number(p.probabilities[at][c].item<double>());
    text += "," + std::to_string(p.tiles[at].item<int64_t>()) + "," + io::csv_number(p.effective_tiles[at].item<double>()) + "\n";
  }
  io::write_file(file, text);
}

std::vector<SlideScore> score_slides(const SlidePredictions& p, uint64_t seed) {
  std::map<std::string, std::vector<size_t>> slides_of;
  std::vector<size_t> all;
  for (size_t i = 0; i < p.slide_ids.size(); ++i) slides_of[p.case_ids[i]].push_back(i), all.push_back(i);
  std::vector<const std::vector<size_t>*> cases;
  for (const auto& [name, slides] : slides_of) cases.push_back(&slides);
  std::vector<SlideScore> scores;
  using Statistic = double (*)(const SlidePredictions&, const std::vector<size_t>&);
  for (const auto& [name, of] : {std::pair<const char*, Statistic>{"AUC", auc_of}, {"accuracy", accuracy_of}}) {
    SlideScore score{name, of(p, all), {NAN, NAN}};
    // Slides of one case resemble each other: it is cases that are drawn.
    const auto of_cases = [&](const std::vector<size_t>& drawn) {
      std::vector<size_t> slides;
      for (const size_t c : drawn) slides.insert(slides.end(), cases[c]->begin(), cases[c]->end());
      return of(p, slides);
    };
    if (cases.size() > 1 && !std::isnan(score.value)) score.interval = train::bootstrap_interval(cases.size(), of_cases, 1000, 0.95, seed);
    scores.push_back(score);
  }
  return scores;
}

std::vector<SlideScore> evaluate_slide_predictions(const fs::path& file, const data::SlideTable& table) {
  const auto csv = io::read_csv(file);
  SlidePredictions p;
  std::vector<torch::Tensor> columns;
  for (const std::string& name : table.classes) columns.push_back(torch::tensor(csv.numbers(csv.column("p_" + name)), torch::kDouble));
  const size_t id = csv.column("slide_id");
  if (csv.rows() == 0) throw IoError(file, "has no slides");
  for (size_t r = 0; r < csv.rows(); ++r) {
    const auto at = std::find_if(table.slides.begin(), table.slides.end(), [&](const auto& s) { return s.slide_id == csv.cell(r, id); });
    if (at == table.slides.end()) throw IoError(file, "slide '" + csv.cell(r, id) + "' is not in " + table.file.string());
    p.slide_ids.push_back(at->slide_id), p.case_ids.push_back(at->case_id), p.labels.push_back(at->label);
  }
  p.probabilities = torch::stack(columns, 1).contiguous();
  return score_slides(p);
}

}  // namespace fovea::recipes
