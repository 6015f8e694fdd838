#pragma once
#include <cstdint>
#include <vector>

#include "fovea/kernels/window_attention.h"

namespace fovea::kernels::cpu {

/// Positions of a window that attend to each other. The first `queries` are tokens, each of them query and key; padded
/// positions that take part as keys follow.
struct WindowGroup {
  std::vector<int32_t> position;
  int64_t queries = 0;
  int64_t keys() const { return static_cast<int64_t>(position.size()); }
};

/// Windows with the same pattern of padding and regions. All bias tiles are shared within a class.
/// Where regions exclude each other the groups are the regions, so the excluded blocks are never computed.
struct WindowClass {
  std::vector<WindowGroup> groups;
  std::vector<int32_t> windows;
  std::vector<int32_t> region;  // of each position
};

/// Consecutive (batch, window) pairs of a class: batch varies slowest. The unit of parallel work, for each head.
struct WindowChunk {
  int32_t window_class;
  int64_t begin, end;
};

/// Everything about a call's windows that does not depend on the data. Memory O(tokens) int32.
struct WindowPlan {
  int64_t n;                   // positions a window
  std::vector<int32_t> token;  // [windows][n], -1: padding
  std::vector<WindowClass> classes;

  /// `split_regions`: regions exclude each other. `padding_takes_part`: padded positions are keys.
  WindowPlan(const Triple& grid, const Triple& window, const Triple& shift, bool split_regions,
             bool padding_takes_part);

  /// Chunks of at most `pairs` pairs, the same for any number of threads.
  std::vector<WindowChunk> chunks(int64_t batch, int64_t pairs) const;
};

}  // namespace fovea::kernels::cpu
