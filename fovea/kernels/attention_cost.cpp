#include "fovea/kernels/attention_cost.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "fovea/core/error.h"
#include "fovea/core/process_memory.h"

namespace fovea::kernels {
namespace {

// Pairs along one axis of n tokens: the sum of squares of how many see each other.
int64_t axis_pairs(int64_t n, int64_t window, int64_t shift) {
  std::vector<int32_t> token(window), region(window);
  int64_t pairs = 0;
  for (int64_t i = 0; i < (n + window - 1) / window; ++i) {
    window_tokens({1, 1, n}, {1, 1, window}, {0, 0, shift}, {0, 0, i}, token.data(), region.data());
    for (int64_t begin = 0, end = 0; begin < window; begin = end) {  // regions follow each other
      int64_t tokens = 0;
      for (; end < window && region[end] == region[begin]; ++end) tokens += token[end] >= 0;
      pairs += tokens * tokens;
    }
  }
  return pairs;
}

void check(const AttentionLayer& layer) {
  constexpr int64_t kMostTokens = int64_t{1} << 31;  // their square still fits 64 bits
  constexpr int64_t kLongest = 1 << 20;
  double tokens = 1;
  for (int axis = 0; axis < 3; ++axis) {
    if (layer.grid[axis] < 1 || layer.window[axis] < 1)
      throw ArgumentError("attention cost: grid and window need lengths of at least 1, found " +
                          std::to_string(std::min(layer.grid[axis], layer.window[axis])));
    if (layer.grid[axis] > kLongest)
      throw ArgumentError("attention cost: an axis has " + std::to_string(layer.grid[axis]) +
                          " tokens, expected at most " + std::to_string(kLongest));
    tokens *= double(layer.grid[axis]);
  }
  if (tokens > double(kMostTokens)) {
    char found[32];
    std::snprintf(found, sizeof found, "%.3g", tokens);
    throw ArgumentError("attention cost: the grid has " + std::string(found) + " tokens, expected at most " +
                        std::to_string(kMostTokens) + "; use larger patches");
  }
  if (layer.heads < 1 || layer.width < 1 || layer.width % layer.heads != 0)
    throw ArgumentError("attention cost: width is " + std::to_string(layer.width) + ", expected a multiple of the " +
                        std::to_string(layer.heads) + " heads");
  if (layer.width > 1 << 20)
    throw ArgumentError("attention cost: width is " + std::to_string(layer.width) + ", expected at most 1048576");
}

}  // namespace

std::string name_of(AttentionReach reach) {
  switch (reach) {
    case AttentionReach::kGlobal:
      return "global";
    case AttentionReach::kWindows:
      return "windows";
    case AttentionReach::kShiftedWindows:
      return "shifted";
    default:
      return "axes";
  }
}

AttentionCost attention_cost(AttentionReach reach, const AttentionLayer& layer) {
  check(layer);
  AttentionCost cost;
  cost.tokens = layer.tokens();
  int64_t layers = 1;
  if (reach == AttentionReach::kGlobal) {
    cost.pairs = cost.plain_pairs = cost.tokens * cost.tokens;
  } else if (reach == AttentionReach::kAxes) {
    layers = 0;
    for (const int64_t length : layer.grid)
      if (length > 1) cost.pairs += cost.tokens * length, ++layers;
    if (layers == 0) cost.pairs = layers = 1;
    cost.plain_pairs = cost.pairs;
  } else {
    cost.pairs = cost.plain_pairs = 1;
    for (int axis = 0; axis < 3; ++axis) {
      const int64_t n = layer.grid[axis], window = std::min(layer.window[axis], n);
      const int64_t shift = reach == AttentionReach::kShiftedWindows && n > window ? window / 2 : 0;
      cost.pairs *= axis_pairs(n, window, shift);
      cost.plain_pairs *= (n + window - 1) / window * window * window;
    }
  }
  const double tokens = double(cost.tokens), width = double(layer.width), heads = double(layer.heads);
  const double element = double(size_of(layer.dtype));
  cost.score_flops = 4 * width * double(cost.pairs);
  cost.projection_flops = 8 * tokens * width * width * double(layers);
  cost.exponentials = heads * double(cost.pairs);
  cost.plain_bytes = heads * double(cost.plain_pairs) * element;
  cost.lse_bytes = heads * tokens * sizeof(float);
  cost.tensor_bytes = 4 * tokens * width * element;
  return cost;
}

namespace {
// A cycle issues `slots` vector operations a second for the whole machine: half the multiply-add peak over 16 lanes.
double scores_per_s(double peak_gflops, double operations) { return peak_gflops / 2 / operations; }
}  // namespace

double forward_roofline(double peak_gflops, int64_t channels) {
  return scores_per_s(peak_gflops, 2.0 * double(channels) + 10);
}
double backward_roofline(double peak_gflops, int64_t channels) {
  return scores_per_s(peak_gflops, 5.0 * double(channels) + 13);
}

namespace {
double compute_seconds(double scores, double projection_flops, const AttentionLayer& layer, const Machine& m) {
  const double gflops = m.peaks.fma_gflops * m.threads;
  return scores / (1e9 * forward_roofline(gflops, layer.channels())) + projection_flops / (1e9 * gflops);
}

double move_seconds(double bytes, const Machine& m) { return bytes / (1e9 * m.peaks.read_gb_per_s * m.threads); }

bool unknown(const Machine& m) { return m.peaks.fma_gflops <= 0 || m.peaks.read_gb_per_s <= 0; }
}  // namespace

Machine this_machine(int threads) { return {measure_peaks(), threads, machine_memory().total_bytes}; }

double fused_seconds(const AttentionCost& cost, const AttentionLayer& layer, const Machine& machine) {
  if (unknown(machine)) return std::numeric_limits<double>::quiet_NaN();
  return std::max(compute_seconds(cost.exponentials, cost.projection_flops, layer, machine),
                  move_seconds(cost.tensor_bytes + cost.lse_bytes, machine));
}

double plain_seconds(const AttentionCost& cost, const AttentionLayer& layer, const Machine& machine) {
  if (unknown(machine)) return std::numeric_limits<double>::quiet_NaN();
  const double scores = double(layer.heads) * double(cost.plain_pairs);
  return compute_seconds(scores, cost.projection_flops, layer, machine) +
         move_seconds(cost.tensor_bytes + 4 * cost.plain_bytes, machine);
}

std::string why_refused(const AttentionCost& cost, const AttentionLayer& layer, const Machine& machine,
                        double longest_s) {
  const double held = cost.tensor_bytes + cost.lse_bytes, time_s = fused_seconds(cost, layer, machine);
  const bool storable = held + cost.plain_bytes <= machine.memory_bytes, held_fits = held <= machine.memory_bytes;
  const bool slow = time_s > longest_s;
  if (held_fits && (storable || !slow)) return "";
  std::string line = std::to_string(cost.tokens) + " tokens need " + std::to_string(cost.pairs) +
                     " dot products a head, " + format_bytes(cost.plain_bytes / double(layer.heads)) +
                     " of scores a head if they are stored, and this machine has " + format_bytes(machine.memory_bytes);
  if (!held_fits) return line + "; queries, keys, values and output alone are " + format_bytes(held);
  return line + "; not stored, they still take " + format_seconds(time_s) + " a layer at best, more than " +
         format_seconds(longest_s);
}

std::string format_seconds(double seconds) {
  char text[32];
  if (!std::isfinite(seconds)) return "?";
  if (seconds < 1e-3)
    std::snprintf(text, sizeof text, "%.0f us", 1e6 * seconds);
  else if (seconds < 1)
    std::snprintf(text, sizeof text, "%.3g ms", 1e3 * seconds);
  else if (seconds < 120)
    std::snprintf(text, sizeof text, "%.3g s", seconds);
  else if (seconds < 7200)
    std::snprintf(text, sizeof text, "%.0f min", seconds / 60);
  else if (seconds < 2 * 86400)
    std::snprintf(text, sizeof text, "%.1f h", seconds / 3600);
  else
    std::snprintf(text, sizeof text, "%.0f days", seconds / 86400);
  return text;
}

}  // namespace fovea::kernels
