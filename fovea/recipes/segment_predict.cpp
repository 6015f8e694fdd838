#include "fovea/recipes/segment_predict.h"

#include <torch/torch.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "fovea/core/error.h"
#include "fovea/core/process_memory.h"
#include "fovea/data/preprocess.h"
#include "fovea/data/resample.h"
#include "fovea/io/config.h"
#include "fovea/io/image.h"
#include "fovea/ops/parallel.h"

namespace fovea::recipes {

namespace fs = std::filesystem;

namespace {
constexpr const char* kEndings[] = {".nii.gz", ".nii", ".nrrd", ".nhdr"};

// File name without its image ending; "" if it has none.
std::string stem_of(const fs::path& path) {
  const std::string name = path.filename();
  for (const std::string ending : kEndings)
    if (name.size() > ending.size() && name.ends_with(ending)) return name.substr(0, name.size() - ending.size());
  return "";
}

// Channel number of "CASE_0003", -1 if the stem does not end that way.
int channel_of(const std::string& stem) {
  if (stem.size() < 6 || stem[stem.size() - 5] != '_') return -1;
  const std::string digits = stem.substr(stem.size() - 4);
  return std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; }) ? std::stoi(digits) : -1;
}

View<const float, 4> view_of(const torch::Tensor& scores) {
  View<const float, 4> v;
  v.data = scores.data_ptr<float>();
  for (int a = 0; a < 4; ++a) v.shape[a] = scores.size(a), v.stride[a] = scores.stride(a);
  return v;
}

torch::Tensor mirrored(const torch::Tensor& t) { return t.flip({t.dim() - 1}).contiguous(); }
}  // namespace

Segmenter Segmenter::load(const fs::path& model) {
  if (infer::recipe_of(model) == "pretrain")
    throw ArgumentError(model.string() + ": learnt to rebuild hidden patches and labels nothing; begin a training from it: fovea train --start " + model.string());
  auto loaded = infer::load_model(model);
  Segmenter s;
  s.network = loaded.network;
  const std::string where = (model / "config.json").string() + ": recipe";
  if (!loaded.recipe.contains("plan"))
    throw IoError(model / "config.json", "expected a segmentation model with a plan, found none; run 'fovea train' or use 'fovea run' for raw tensors");
  s.plan = io::from_json<data::Plan>(loaded.recipe["plan"], where + ".plan");
  s.windows = infer::nnunet_windows(s.plan.patch_size, {});
  if (loaded.recipe.contains("predict"))
    s.windows = io::from_json<infer::SlidingWindowConfig>(loaded.recipe["predict"], where + ".predict");
  s.network->eval();
  for (torch::Tensor& parameter : s.network->parameters()) parameter.requires_grad_(false);  // lets layers keep what they derive
  return s;
}

infer::WindowNetwork Segmenter::window_network() const {
  return [network = network](const torch::Tensor& windows) {
    torch::InferenceMode inference;
    return network->forward(windows);
  };
}

std::vector<PredictInput> find_inputs(const fs::path& path, int64_t channels) {
  if (!fs::exists(path)) throw IoError(path, "no such file or folder");
  if (!fs::is_directory(path)) {
    const std::string stem = stem_of(path);
    const bool suffixed = channel_of(stem) >= 0;
    return {{stem.empty() ? path.filename().string() : suffixed ? stem.substr(0, stem.size() - 5) : stem, {path}}};
  }
  std::map<std::string, std::vector<fs::path>> cases;
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string stem = stem_of(entry.path());
    if (stem.empty() || stem.front() == '.') continue;
    const int channel = channel_of(stem);
    auto& files = cases[channel >= 0 ? stem.substr(0, stem.size() - 5) : stem];
    files.resize(std::max<size_t>(files.size(), size_t(std::max(channel, 0)) + 1));
    files[std::max(channel, 0)] = entry.path();
  }
  if (cases.empty() && io::is_dicom(path)) return {{fs::canonical(path).filename().string(), {path}}};
  if (cases.empty()) throw IoError(path, "no images found, expected files ending in .nii.gz, .nii or .nrrd, or a DICOM series");
  std::vector<PredictInput> inputs;
  for (auto& [id, files] : cases) {
    for (size_t c = 0; c < files.size(); ++c)
      if (files[c].empty()) throw IoError(path, "case " + id + " has no file for channel " + std::to_string(c) + " (" + id + "_000" + std::to_string(c) + ")");
    if (files.size() != 1 && int64_t(files.size()) != channels)
      throw IoError(path, "case " + id + " has " + std::to_string(files.size()) + " channel files, expected " + std::to_string(channels));
    inputs.push_back({id, files});
  }
  return inputs;
}

PredictResult predict_case(const Segmenter& segmenter, const PredictInput& input, const fs::path& output,
                           const PredictOptions& options, const infer::WindowProgress& progress) {
  PredictResult result{input.id, output, {}, {}, 0, ""};
  const ParallelFor parallel = ops::torch_parallel_for;
  const auto network = segmenter.window_network();
  const int64_t classes = segmenter.plan.classes();

  auto p = result.stages.run("read and prepare", [&] {
    return data::preprocess({input.id, input.images, {}}, segmenter.plan, parallel);
  });
  if (options.mirror_left_right) p.image = mirrored(p.image);

  const auto probe = result.stages.run("plan memory", [&] { return infer::probe_network(network, segmenter.plan.channels(), segmenter.windows); });
  infer::PredictionProblem problem;
  problem.shape = p.grid.shape;
  problem.network = probe;
  problem.network.classes = classes;
  problem.resident_bytes = resident_bytes();
  problem.other_bytes = 3 * p.source.voxels();  // labels at the native grid, reoriented, and being compressed
  problem.channels = segmenter.plan.channels();
  problem.limit_bytes = options.max_ram_bytes;
  result.memory = infer::plan_prediction(problem, segmenter.windows);

  infer::ScoreSink keep_probabilities;
  torch::Tensor kept;
  if (options.save_probabilities) {
    kept = torch::zeros({classes, p.grid.shape[0], p.grid.shape[1], p.grid.shape[2]}, torch::kUInt8);
    keep_probabilities = [&](const infer::Triple& start, const torch::Tensor& scores) {
      auto part = kept;
      for (int a = 0; a < 3; ++a) part = part.narrow(a + 1, start[a], scores.size(a + 1));
      part.copy_(infer::probabilities(scores, DType::kU8));
    };
  }

  // Scores are resampled plane by plane when whole planes arrive; in stripes the labels are resampled instead.
  const bool same_grid = p.grid.shape == p.native_shape();
  const bool resample_scores = !same_grid && result.memory.stripes == infer::Stripes{} && classes <= 256;
  result.label_resampling = same_grid ? "none" : resample_scores ? "scores, linear" : "labels, nearest";
  torch::Tensor labels;
  result.stages.run("infer", [&] {
    if (resample_scores) {
      const auto& n = p.native_shape();
      labels = torch::zeros({n[0], n[1], n[2]}, torch::kUInt8);
      data::ResampleArgmax resample(classes, p.grid.shape, View<uint8_t, 3>::contiguous(labels.data_ptr<uint8_t>(), n), parallel);
      infer::stream_scores(p.image, network, segmenter.windows, result.memory.stripes, [&](const infer::Triple& start, const torch::Tensor& scores) {
        if (keep_probabilities) keep_probabilities(start, scores);
        resample.push(view_of(scores));
      }, progress);
      resample.finish();
    } else {
      labels = infer::predict_labels(p.image, network, segmenter.windows, {result.memory.stripes, keep_probabilities, progress});
    }
  });
  if (options.mirror_left_right) labels = mirrored(labels);
  auto restored = result.stages.run("restore", [&] { return data::restore_labels(labels, p, parallel); });
  result.stages.run("write", [&] {
    io::WriteOptions named;
    for (const data::LabelClass& label : segmenter.plan.labels)
      if (!label.values.empty()) named.label_names[label.values.front()] = label.name;
    io::write_image(output, restored, named);
    if (!kept.defined()) return;
    if (options.mirror_left_right) kept = mirrored(kept);
    Volume probabilities = Volume::zeros(p.grid, DType::kU8, classes);
    std::memcpy(probabilities.data.data(), kept.data_ptr(), probabilities.data.size());
    io::write_image(output.parent_path() / (input.id + "_probabilities.nii.gz"), probabilities);
  });
  result.peak_bytes = peak_resident_bytes();
  return result;
}

}  // namespace fovea::recipes
