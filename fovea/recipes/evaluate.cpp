#include "fovea/recipes/evaluate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>

#include "fovea/core/error.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/image.h"
#include "fovea/ops/parallel.h"

namespace fovea::recipes {
namespace {

using io::Json;
using train::MetricMean;
using train::SegmentationMetrics;
namespace fs = std::filesystem;

constexpr std::array<const char*, 4> kEndings{".nii.gz", ".nii", ".nrrd", ".nhdr"};

/// File name without the ending of an image, or "" for other files.
std::string case_name(const fs::path& path) {
  const std::string name = path.filename().string();
  for (const std::string ending : kEndings)
    if (name.size() > ending.size() && name.ends_with(ending) && name[0] != '.') return name.substr(0, name.size() - ending.size());
  return "";
}

std::map<std::string, fs::path> images_of(const fs::path& folder) {
  std::error_code error;
  std::map<std::string, fs::path> images;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = case_name(entry.path());
    if (name.empty()) continue;
    if (!images.emplace(name, entry.path()).second)
      throw IoError(entry.path(), "second image of case " + name + " beside " + images.at(name).filename().string() + "; remove one");
  }
  if (error) throw IoError(folder, "cannot list the folder: " + error.message());
  return images;
}

/// The voxels as integers.
std::vector<int32_t> labels_of(const Volume& volume, const fs::path& path) {
  if (volume.channels != 1) throw IoError(path, "has " + std::to_string(volume.channels) + " channels, expected 1 channel of labels");
  if (volume.dtype == DType::kF16 || volume.dtype == DType::kBF16) throw IoError(path, "has voxels of type " + std::string(name_of(volume.dtype)) + ", expected integers");
  std::vector<int32_t> labels(size_t(volume.size()));
  visit_dtype(volume.dtype, [&]<class T>(T) {
    const auto voxels = volume.as<T>();
    for (size_t i = 0; i < labels.size(); ++i) {
      const double v = double(voxels[i]);
      if (!(v >= 0 && v <= 2147483647.0) || v != std::floor(v))
        throw IoError(path, "voxel " + std::to_string(i) + " is " + std::to_string(v) + ", expected a label: an integer from 0 on");
      labels[i] = static_cast<int32_t>(v);
    }
  });
  return labels;
}

void check_labels(const std::vector<int32_t>& voxels, const std::set<int64_t>& allowed, const fs::path& path, const std::array<int64_t, 3>& shape) {
  int32_t last = -1;
  for (size_t i = 0; i < voxels.size(); ++i) {
    if (voxels[i] == last) continue;
    last = voxels[i];
    if (allowed.contains(last)) continue;
    std::string known;
    for (int64_t v : allowed) known += (known.empty() ? "" : ", ") + std::to_string(v);
    const int64_t x = int64_t(i) % shape[2], y = int64_t(i) / shape[2] % shape[1], z = int64_t(i) / shape[2] / shape[1];
    throw IoError(path, "label " + std::to_string(last) + " at voxel (x, y, z) = (" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) +
                            "), expected one of " + known);
  }
}

std::vector<uint8_t> mask_of(const std::vector<int32_t>& voxels, const std::vector<int64_t>& values) {
  std::vector<uint8_t> mask(voxels.size());
  for (int64_t value : values)
    for (size_t i = 0; i < voxels.size(); ++i) mask[i] |= voxels[i] == value;
  return mask;
}

std::string nsd_name(double tolerance_mm) {
  char text[32];
  std::snprintf(text, sizeof text, "NSD_%gmm", tolerance_mm);
  return text;
}

/// What is ours alone, in the order of reports.
std::vector<std::pair<std::string, double>> further_metrics(const SegmentationMetrics& m, const EvaluateOptions& options) {
  std::vector<std::pair<std::string, double>> v{
      {"volumetric_similarity", m.volumetric_similarity}, {"volume_pred_ml", m.volume_pred_ml}, {"volume_ref_ml", m.volume_ref_ml}};
  if (!options.metrics.surface) return v;
  v.insert(v.end(), {{"HD_mm", m.hd_mm}, {"HD95_mm", m.hd95_mm}, {"ASSD_mm", m.assd_mm}});
  for (size_t t = 0; t < m.nsd.size(); ++t) v.emplace_back(nsd_name(options.metrics.tolerances_mm[t]), m.nsd[t]);
  return v;
}

/// nnU-Net's metrics of one structure; counts stay integers.
Json nnunet_metrics(const SegmentationMetrics& m) {
  const auto& c = m.counts;
  return {{"Dice", m.dice}, {"FN", c.fn}, {"FP", c.fp}, {"IoU", m.iou}, {"TN", c.tn}, {"TP", c.tp}, {"n_pred", c.n_pred()}, {"n_ref", c.n_ref()}};
}

Json json_of(const MetricMean& m) { return {{"mean", m.mean}, {"used", m.used}, {"excluded", m.excluded}}; }

/// As Python's json.dump(indent=4, sort_keys=True) writes it.
void append_python(std::string& out, const Json& json, int depth) {
  const std::string line = "\n" + std::string(size_t(depth + 1) * 4, ' '), end = "\n" + std::string(size_t(depth) * 4, ' ');
  if (json.is_object() && !json.empty()) {
    std::map<std::string, const Json*> sorted;
    for (const auto& [key, value] : json.items()) sorted.emplace(key, &value);
    const char* before = "{";
    for (const auto& [key, value] : sorted) {
      out += before + line + Json(key).dump(-1, ' ', true) + ": ";
      append_python(out, *value, depth + 1);
      before = ",";
    }
    out += end + "}";
  } else if (json.is_array() && !json.empty()) {
    const char* before = "[";
    for (const Json& value : json) {
      out += before + line;
      append_python(out, value, depth + 1);
      before = ",";
    }
    out += end + "]";
  } else if (json.is_number_float() && !std::isfinite(json.get<double>())) {
    const double v = json.get<double>();
    out += std::isnan(v) ? "NaN" : v > 0 ? "Infinity" : "-Infinity";
  } else {
    out += json.dump(-1, ' ', true);
  }
}

}  // namespace

std::string EvaluationLabel::key() const {
  if (values.size() == 1) return std::to_string(values[0]);
  std::string text = "(";
  for (size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + ")";
}

CaseEvaluation evaluate_case(const fs::path& prediction, const fs::path& reference, const std::vector<EvaluationLabel>& labels,
                             const EvaluateOptions& options) {
  const Volume predicted = io::read_image(prediction), referred = io::read_image(reference);
  const Geometry& grid = referred.geometry;
  if (!same_grid(predicted.geometry, grid, options.grid_tolerance_mm))
    throw IoError(prediction, "has grid " + to_string(predicted.geometry) + ", expected that of " + reference.string() + ": " + to_string(grid));
  std::set<int64_t> allowed{0};
  for (const EvaluationLabel& l : labels) allowed.insert(l.values.begin(), l.values.end());
  const auto p = labels_of(predicted, prediction), r = labels_of(referred, reference);
  check_labels(p, allowed, prediction, grid.shape);
  if (options.ignore_label) allowed.insert(*options.ignore_label);
  check_labels(r, allowed, reference, grid.shape);

  CaseEvaluation result{case_name(reference), reference, prediction, train::diagonal_mm(grid.shape, grid.spacing_mm()), {}};
  const auto view = [&](const std::vector<uint8_t>& mask) { return View<const uint8_t, 3>::contiguous(mask.data(), grid.shape); };
  const auto ignored = options.ignore_label ? mask_of(r, {*options.ignore_label}) : std::vector<uint8_t>{};
  for (const EvaluationLabel& l : labels) {
    const auto in_prediction = mask_of(p, l.values), in_reference = mask_of(r, l.values);
    result.metrics.push_back(train::segmentation_metrics(view(in_prediction), view(in_reference), grid.spacing_mm(), options.metrics,
                                                         ops::torch_parallel_for, ignored.empty() ? View<const uint8_t, 3>{} : view(ignored)));
  }
  return result;
}

Evaluation evaluate_folders(const fs::path& predictions, const fs::path& references, const std::vector<EvaluationLabel>& labels,
                            const EvaluateOptions& options) {
  if (labels.empty()) throw ArgumentError("evaluate: no labels to score; name at least one");
  for (const EvaluationLabel& l : labels)
    if (l.values.empty()) throw ArgumentError("evaluate: label '" + l.name + "' has no value, expected at least one");
  const auto predicted = images_of(predictions), referred = images_of(references);
  if (predicted.empty()) throw IoError(predictions, "holds no image (.nii, .nii.gz, .nrrd, .nhdr)");
  for (const auto& [name, path] : predicted)
    if (!referred.contains(name)) throw IoError(path, "has no reference: no image named " + name + " in " + references.string());
  for (const auto& [name, path] : referred)
    if (!predicted.contains(name)) throw IoError(path, "has no prediction: no image named " + name + " in " + predictions.string());
  Evaluation e{labels, options, {}};
  for (const auto& [name, path] : predicted) {
    e.cases.push_back(evaluate_case(path, referred.at(name), labels, options));
    if (options.progress) options.progress(int64_t(e.cases.size()), int64_t(predicted.size()));
  }
  return e;
}

std::vector<MetricSummary> summarise(const Evaluation& e, size_t label) {
  std::vector<MetricSummary> summary;
  std::vector<std::vector<double>> excluded, penalised;
  for (const CaseEvaluation& c : e.cases) {
    const auto values = [&](train::EmptyPolicy policy) {
      const SegmentationMetrics m = train::with_policy(c.metrics[label], policy, c.diagonal_mm);
      std::vector<std::pair<std::string, double>> v{{"Dice", m.dice}, {"IoU", m.iou}};
      const auto further = further_metrics(m, e.options);
      v.insert(v.end(), further.begin(), further.end());
      return v;
    };
    const auto a = values(train::EmptyPolicy::kNanExcluded), b = values(train::EmptyPolicy::kPenalised);
    excluded.resize(a.size()), penalised.resize(b.size()), summary.resize(a.size());
    for (size_t i = 0; i < a.size(); ++i) summary[i].metric = a[i].first, excluded[i].push_back(a[i].second), penalised[i].push_back(b[i].second);
  }
  for (size_t i = 0; i < summary.size(); ++i) summary[i].nan_excluded = train::mean_of(excluded[i]), summary[i].penalised = train::mean_of(penalised[i]);
  return summary;
}

train::PresenceCounts presence(const Evaluation& e, size_t label) {
  train::PresenceCounts counts;
  for (const CaseEvaluation& c : e.cases) counts.add(c.metrics[label].counts);
  return counts;
}

Json summary_json(const Evaluation& e, bool with_fovea) {
  Json cases = Json::array(), mean = Json::object(), foreground = Json::object();
  for (const CaseEvaluation& c : e.cases) {
    Json metrics = Json::object();
    for (size_t l = 0; l < e.labels.size(); ++l) metrics[e.labels[l].key()] = nnunet_metrics(c.metrics[l]);
    cases.push_back({{"metrics", metrics}, {"prediction_file", c.prediction.string()}, {"reference_file", c.reference.string()}});
  }
  std::map<std::string, std::vector<double>> over_labels;
  for (size_t l = 0; l < e.labels.size(); ++l) {
    std::map<std::string, std::vector<double>> over_cases;
    for (const CaseEvaluation& c : e.cases) {
      const Json metrics = nnunet_metrics(c.metrics[l]);
      for (const auto& [metric, value] : metrics.items()) over_cases[metric].push_back(value.get<double>());
    }
    for (const auto& [metric, values] : over_cases) {
      const double m = train::mean_of(values).mean;
      mean[e.labels[l].key()][metric] = m;
      if (e.labels[l].values != std::vector<int64_t>{0}) over_labels[metric].push_back(m);
    }
  }
  for (const auto& [metric, values] : over_labels) {  // nnU-Net: nan here if any structure is nan
    double sum = 0;
    for (double v : values) sum += v;
    foreground[metric] = sum / double(values.size());
  }
  Json json{{"foreground_mean", foreground}, {"mean", mean}, {"metric_per_case", cases}};
  if (!with_fovea) return json;

  Json& ours = json["fovea"];
  ours["surface_convention"] = train::name_of(e.options.metrics.convention);
  ours["empty_policy"] = train::name_of(e.options.policy);
  if (e.options.ignore_label) ours["ignore_label"] = *e.options.ignore_label;
  for (size_t l = 0; l < e.labels.size(); ++l) {
    const train::PresenceCounts counts = presence(e, l);
    Json& label = ours["labels"][e.labels[l].key()];
    label["name"] = e.labels[l].name;
    label["cases"] = {{"in_both", counts.in_both}, {"only_in_reference", counts.only_in_reference},
                      {"only_in_prediction", counts.only_in_prediction}, {"in_neither", counts.in_neither}};
    for (const MetricSummary& s : summarise(e, l)) label["mean"][s.metric] = {{"nan-excluded", json_of(s.nan_excluded)}, {"penalised", json_of(s.penalised)}};
  }
  for (const CaseEvaluation& c : e.cases) {
    Json item{{"case", c.name}, {"diagonal_mm", c.diagonal_mm}};
    for (size_t l = 0; l < e.labels.size(); ++l)
      for (const auto& [metric, value] : further_metrics(c.metrics[l], e.options)) item["metrics"][e.labels[l].key()][metric] = value;
    ours["per_case"].push_back(std::move(item));
  }
  return json;
}

void write_summary(const fs::path& path, const Evaluation& e, bool with_fovea) {
  std::string text;
  append_python(text, summary_json(e, with_fovea), 0);
  io::write_file(path, text);
}

std::string summary_text(const Evaluation& e) {
  std::string text;
  char line[256];
  std::snprintf(line, sizeof line, "%zu cases, surface convention %s, empty structures %s\n", e.cases.size(),
                train::name_of(e.options.metrics.convention).c_str(), train::name_of(e.options.policy).c_str());
  text += line;
  const bool penalise = e.options.policy == train::EmptyPolicy::kPenalised;
  for (size_t l = 0; l < e.labels.size(); ++l) {
    const train::PresenceCounts c = presence(e, l);
    std::snprintf(line, sizeof line, "%s %s: in both %lld, only in reference %lld, only in prediction %lld, in neither %lld\n", e.labels[l].key().c_str(),
                  e.labels[l].name.c_str(), (long long)c.in_both, (long long)c.only_in_reference, (long long)c.only_in_prediction, (long long)c.in_neither);
    text += line;
    for (const MetricSummary& s : summarise(e, l)) {
      const MetricMean &m = penalise ? s.penalised : s.nan_excluded, &other = penalise ? s.nan_excluded : s.penalised;
      std::snprintf(line, sizeof line, "  %-22s %10.4f  over %lld, %lld left out; %s %.4f\n", s.metric.c_str(), m.mean, (long long)m.used,
                    (long long)m.excluded, penalise ? "nan-excluded" : "penalised", other.mean);
      text += line;
    }
  }
  return text;
}

}  // namespace fovea::recipes
