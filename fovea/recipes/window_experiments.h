#pragma once
#include <torch/torch.h>

#include <vector>

#include "fovea/kernels/window_attention.h"

// What `fovea check`, `fovea claims` and the lessons find out about (shifted) windows, each computed in one place.
namespace fovea::recipes {

/// Pairs of positions in all windows of a padded grid, and those that regions keep apart.
struct PairCounts {
  int64_t pairs = 0, masked = 0, windows = 0, windows_with_mask = 0;
  int64_t disagreeing = 0;  // with the published slice construction: must be 0
};
PairCounts count_pairs(const kernels::Triple& grid, const kernels::Triple& window, const kernels::Triple& shift);

/// Which tokens of an axis token i sees through `layers` alternating layers, the first one unshifted: a boolean
/// prediction.
std::vector<bool> predicted_reach(int64_t n, int64_t window, int64_t layers, int64_t i);

/// Layers until every (worst) and until some (best) token of an axis sees all of it. n > window, a multiple of it.
struct AxisDepth {
  int64_t worst = 0, best = 0;
};
AxisDepth layers_until_whole_axis(int64_t n, int64_t window);

/// The same when the roll joins both ends of the axis, as on a torus: no region keeps tokens apart. Every token is alike.
int64_t layers_until_whole_axis_on_torus(int64_t n, int64_t window);

/// The same for a stack that merges pairs of tokens after every two layers until one window holds the axis: layers
/// until the worst token of the last grid sees the whole first one.
int64_t layers_until_whole_axis_with_merging(int64_t n, int64_t window);

/// Inputs with a non-zero derivative of output `token` through `layers` alternating layers with random projections, in
/// double: bool [Z,Y,X].
torch::Tensor gradient_support(const kernels::Triple& grid, const kernels::Triple& window, int64_t layers,
                               const kernels::Triple& token, uint64_t seed);

/// Slope of log(time) over log(tokens) on one thread: windows of 7^3 on 42^3 to 84^3 tokens, global attention of 2k to
/// 16k. Cost     2 s and 3 s; `full`: more rounds.
double windowed_time_exponent(bool full);
double global_time_exponent(bool full);

/// Memory that windowed attention takes beside its inputs and outputs, and what the plain form would store.
struct Workspace {
  bool measured = false;  // false: this system does not let a process reset its peak memory
  double extra_bytes = 0, plain_bytes = 0;
};
Workspace measure_workspace(int64_t edge, int64_t window, int64_t heads, int64_t channels);

}  // namespace fovea::recipes
