// Lets tests run the sliding window with a cheap network and look at its results or at the memory of a fresh process.
//   fovea_infer_probe scores|labels RULE BLENDING OVERLAP PZ PY PX MIRROR BATCH SY SX  C Z Y X K  IMAGE WEIGHTS OUT
//       the network is y_k = tanh(conv3d(x, w, padding 1)) + position term; IMAGE f32 [C,Z,Y,X], WEIGHTS f32 [K,C,3,3,3]
//       MIRROR: axes as digits, "-" for none; OUT: f32 [K,Z,Y,X] or u8 [Z,Y,X]
//   fovea_infer_probe weights RULE PZ PY PX OUT
//   fovea_infer_probe memory K Z Y X PATCH OVERLAP LIMIT_BYTES      (0: no limit)
//       prints the plan and "peak_rss BYTES" of predict_labels() with a 1x1x1 convolution to K classes
#include <cstdio>
#include <fstream>
#include <string>

#include "fovea/core/error.h"
#include "fovea/core/process_memory.h"
#include "fovea/infer/memory_plan.h"

namespace {

using namespace fovea;
using namespace fovea::infer;

torch::Tensor read_floats(const std::string& path, const std::vector<int64_t>& shape) {
  auto t = torch::empty(shape, torch::kFloat);
  std::ifstream file(path, std::ios::binary);
  if (!file.read(static_cast<char*>(t.mutable_data_ptr()), t.numel() * 4)) throw IoError(path, "expected " + std::to_string(t.numel()) + " floats");
  return t;
}

void write_bytes(const std::string& path, const void* data, size_t bytes) {
  std::ofstream file(path, std::ios::binary);
  if (!file.write(static_cast<const char*>(data), std::streamsize(bytes)).flush()) throw IoError(path, "cannot write");
}

WindowRule rule_of(const std::string& name) { return name == "monai" ? WindowRule::kMonai : WindowRule::kNnunet; }

int predict(char** a) {
  const bool labels = std::string(a[1]) == "labels";
  SlidingWindowConfig config;
  config.rule = rule_of(a[2]);
  config.blending = std::string(a[3]) == "gaussian" ? Blending::kGaussian : Blending::kConstant;
  config.overlap = std::stod(a[4]);
  config.patch_size = {std::stoll(a[5]), std::stoll(a[6]), std::stoll(a[7])};
  for (char c : std::string(a[8]))
    if (c != '-') config.mirror_axes.push_back(c - '0');
  config.batch = std::stoll(a[9]);
  const Stripes stripes{std::stoll(a[10]), std::stoll(a[11])};
  const int64_t channels = std::stoll(a[12]), classes = std::stoll(a[16]);
  const auto image = read_floats(a[17], {channels, std::stoll(a[13]), std::stoll(a[14]), std::stoll(a[15])});
  const auto weights = read_floats(a[18], {classes, channels, 3, 3, 3});
  const WindowNetwork network = [&](const torch::Tensor& x) {
    // The ramp along x makes the answer depend on the place in the window, so that blending matters.
    return torch::tanh(torch::conv3d(x, weights, {}, 1, 1)) + torch::linspace(0, 0.25, x.size(4));
  };
  if (labels) {
    LabelOptions options;
    options.stripes = stripes;
    const auto found = predict_labels(image, network, config, options);
    write_bytes(a[19], found.const_data_ptr(), found.nbytes());
  } else {
    const auto scores = predict_scores(image, network, config);
    write_bytes(a[19], scores.const_data_ptr(), size_t(scores.numel()) * 4);
  }
  return 0;
}

int weights(char** a) {
  SlidingWindowConfig config;
  config.rule = rule_of(a[2]), config.patch_size = {std::stoll(a[3]), std::stoll(a[4]), std::stoll(a[5])};
  const auto w = window_weights(config);
  write_bytes(a[6], w.const_data_ptr(), size_t(w.numel()) * 4);
  return 0;
}

int memory(char** a) {
  const int64_t classes = std::stoll(a[2]), patch = std::stoll(a[6]);
  const Triple shape{std::stoll(a[3]), std::stoll(a[4]), std::stoll(a[5])};
  SlidingWindowConfig config = nnunet_windows({patch, patch, patch}, {});
  config.overlap = std::stod(a[7]);
  const auto image = torch::rand({1, shape[0], shape[1], shape[2]});
  const auto weight = torch::randn({classes, 1, 1, 1, 1}), bias = torch::randn({classes});
  const WindowNetwork network = [&](const torch::Tensor& x) { return torch::conv3d(x, weight, bias); };

  PredictionProblem problem;
  problem.shape = shape;
  problem.network = probe_network(network, 1, config);
  problem.resident_bytes = resident_bytes();
  problem.limit_bytes = std::stoll(a[8]);
  const MemoryPlan plan = plan_prediction(problem, config);
  LabelOptions options;
  options.stripes = plan.stripes;
  const auto labels = predict_labels(image, network, config, options);
  std::printf("%s\npredicted %lld\npeak_rss %lld\n", plan.to_string().c_str(), (long long)plan.peak_bytes, (long long)peak_resident_bytes());
  return labels.numel() == shape[0] * shape[1] * shape[2] ? 0 : 1;
}

}  // namespace

int main(int count, char** a) try {
  const std::string mode = count > 1 ? a[1] : "";
  if ((mode == "scores" || mode == "labels") && count == 20) return predict(a);
  if (mode == "weights" && count == 7) return weights(a);
  if (mode == "memory" && count == 9) return memory(a);
  std::fprintf(stderr, "fovea_infer_probe: unknown call; see the head of its source\n");
  return 2;
} catch (const fovea::Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return int(e.code());
}
