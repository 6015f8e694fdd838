#include "fovea/infer/memory_plan.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "fovea/core/error.h"
#include "fovea/core/process_memory.h"

namespace fovea::infer {
namespace {

/// Allowance for what the formula does not see: the allocator's rounding, thread stacks, index buffers.
constexpr int64_t kSlackBytes = int64_t{32} << 20;

int64_t longest_piece(int64_t length, int64_t pieces) {
  int64_t longest = 0;
  for (int64_t i = 0; i < pieces; ++i) longest = std::max(longest, length * (i + 1) / pieces - length * i / pieces);
  return longest;
}

}  // namespace

NetworkProbe probe_network(const WindowNetwork& network, int64_t channels, const SlidingWindowConfig& config) {
  config.validate();
  torch::NoGradGuard no_grad;
  const Triple& p = config.patch_size;
  const int64_t window_bytes = config.batch * channels * p[0] * p[1] * p[2] * 4;
  NetworkProbe probe;
  release_free_memory();
  const bool measured = reset_peak_resident();
  const int64_t before = resident_bytes();
  int64_t logit_bytes = 0;
  {
    const auto logits = predict_window(torch::zeros({config.batch, channels, p[0], p[1], p[2]}), network, config);
    probe.classes = logits.size(1), logit_bytes = logits.numel() * 4;
  }
  probe.peak_bytes = std::max<int64_t>(peak_resident_bytes() - before, 0);
  if (!measured) probe.peak_bytes = std::max(probe.peak_bytes, window_bytes + 3 * logit_bytes);
  release_free_memory();
  return probe;
}

MemoryPlan plan_prediction(const PredictionProblem& problem, const SlidingWindowConfig& config) {
  const Triple &shape = problem.shape, &patch = config.patch_size;
  const int64_t voxels = shape[0] * shape[1] * shape[2], classes = problem.network.classes;
  const auto starts = window_starts(shape, config);
  MemoryPlan base;
  base.resident_bytes = problem.resident_bytes, base.image_bytes = problem.image_bytes;
  base.label_bytes = voxels * (classes <= 256 ? 1 : 2);
  base.network_bytes = problem.network.peak_bytes + patch[0] * patch[1] * patch[2] * 4;
  base.other_bytes = problem.other_bytes, base.windows_uncut = window_count(shape, config);
  base.dense_score_bytes = voxels * classes * 4;

  const auto cut = [&](const Stripes& stripes) {
    MemoryPlan plan = base;
    plan.stripes = stripes;
    plan.accumulator_bytes = (classes + 1) * patch[0] * longest_piece(shape[1], stripes.y) * longest_piece(shape[2], stripes.x) * 4;
    plan.peak_bytes = plan.resident_bytes + plan.image_bytes + plan.label_bytes +
                      std::max(plan.accumulator_bytes + plan.network_bytes, plan.other_bytes) + kSlackBytes;
    return plan;
  };
  MemoryPlan best = cut({});
  best.windows = best.windows_uncut;
  if (problem.limit_bytes == 0 || best.peak_bytes <= problem.limit_bytes) return best;

  // Cutting into more pieces than windows fit side by side only adds windows; twice that is the finest we try.
  const int64_t most_y = std::min(shape[1], 2 * int64_t(starts[1].size())), most_x = std::min(shape[2], 2 * int64_t(starts[2].size()));
  const MemoryPlan narrowest = cut({most_y, most_x});
  if (narrowest.peak_bytes > problem.limit_bytes) {
    std::string advice = "a smaller patch";
    if (config.batch > 1) advice = "batch 1 (now " + std::to_string(config.batch) + "), " + advice;
    if (narrowest.network_bytes < narrowest.label_bytes + narrowest.image_bytes) advice = "a coarser spacing, " + advice;
    throw ResourceError("prediction needs " + format_bytes(narrowest.peak_bytes) + ", limit " + format_bytes(problem.limit_bytes) +
                        " (program and image " + format_bytes(narrowest.resident_bytes + narrowest.image_bytes) + ", labels " +
                        format_bytes(narrowest.label_bytes) + ", network " + format_bytes(narrowest.network_bytes) + ", narrowest stripe " +
                        format_bytes(narrowest.accumulator_bytes) + "); try " + advice + " or --max-ram " +
                        std::to_string((narrowest.peak_bytes >> 20) + 1) + "M");
  }
  int64_t fewest = -1;
  for (int64_t y = 1; y <= most_y; ++y)
    for (int64_t x = 1; x <= most_x; ++x) {
      MemoryPlan plan = cut({y, x});
      if (plan.peak_bytes > problem.limit_bytes) continue;
      plan.windows = window_count(shape, config, plan.stripes);
      if (fewest < 0 || plan.windows < fewest) fewest = plan.windows, best = plan;
      break;  // more pieces along x only add windows
    }
  return best;
}

std::string MemoryPlan::to_string() const {
  std::string text = "peak " + format_bytes(peak_bytes) + " (now " + format_bytes(resident_bytes) + ", accumulators " + format_bytes(accumulator_bytes) +
                     ", network " + format_bytes(network_bytes) + ", labels " + format_bytes(label_bytes);
  if (image_bytes > 0) text += ", image " + format_bytes(image_bytes);
  if (other_bytes > 0) text += ", afterwards " + format_bytes(other_bytes);
  text += "; all scores at once would be " + format_bytes(dense_score_bytes) + ")";
  if (stripes == Stripes{}) return text + "; " + std::to_string(windows) + " windows in one stripe";
  return text + "; cut into " + std::to_string(stripes.y) + " x " + std::to_string(stripes.x) + " stripes (y, x): " + std::to_string(windows) +
         " windows instead of " + std::to_string(windows_uncut);
}

int64_t parse_bytes(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string unit(end, text.data() + text.size());
  double factor = 0;
  if (unit.empty() || unit == "B") factor = 1;
  else if (unit.size() == 1 || unit.substr(1) == "B" || unit.substr(1) == "iB") {
    const size_t power = std::string("KMGT").find(char(std::toupper(static_cast<unsigned char>(unit[0]))));
    if (power != std::string::npos) factor = std::pow(1024.0, double(power + 1));
  }
  if (error != std::errc{} || factor == 0 || !(value > 0) || value * factor > 9e18)
    throw ArgumentError("'" + text + "' is no amount of memory; expected e.g. 4G, 512M or a number of bytes");
  return int64_t(value * factor);
}

}  // namespace fovea::infer
