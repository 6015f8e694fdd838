#pragma once
#include <algorithm>
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

/// Offset of a flat token index in a tensor with any Z, Y, X strides.
struct TokenOffset {
  int64_t z, y, x, Y, X;
  bool merged;
  TokenOffset(const Triple& grid, int64_t sz, int64_t sy, int64_t sx)
      : z(sz), y(sy), x(sx), Y(grid[1]), X(grid[2]), merged(sy == X * sx && sz == Y * sy) {}
  int64_t operator()(int64_t t) const { return merged ? t * x : t / (Y * X) * z + t / X % Y * y + t % X * x; }
};

/// A call and what its passes share, whatever they compute with.
template <class T>
struct WindowCall {
  const WindowAttentionParams<T>& p;
  int64_t B = p.qkv.shape[0], H = p.qkv.shape[5], C = p.qkv.shape[6];
  Triple grid{p.qkv.shape[1], p.qkv.shape[2], p.qkv.shape[3]};
  WindowPlan plan;
  std::vector<WindowChunk> chunks;
  std::vector<int32_t> linear;  // row of bias_table of (i, j) = linear[i] - linear[j] + centre
  int32_t centre;
  TokenOffset in, out, lse;

  explicit WindowCall(const WindowAttentionParams<T>& params)
      : p(params),
        plan(grid, p.window, p.shift, !p.mask_value, p.pad_token.data != nullptr),
        linear(plan.n),
        in(grid, p.qkv.stride[1], p.qkv.stride[2], p.qkv.stride[3]),
        out(grid, p.out.stride[1], p.out.stride[2], p.out.stride[3]),
        lse(grid, p.lse.stride[2], p.lse.stride[3], p.lse.stride[4]) {
    const int64_t wy = p.window[1], wx = p.window[2];
    for (int64_t i = 0; i < plan.n; ++i)
      linear[i] = static_cast<int32_t>((i / (wy * wx) * (2 * wy - 1) + i / wx % wy) * (2 * wx - 1) + i % wx);
    centre = linear.back();
  }
  const int32_t* tokens(const WindowClass& c, int64_t pair) const {
    return plan.token.data() + c.windows[pair % static_cast<int64_t>(c.windows.size())] * plan.n;
  }
  int64_t batch(const WindowClass& c, int64_t pair) const { return pair / static_cast<int64_t>(c.windows.size()); }
  const T* qkv_of(int64_t b, int64_t h) const { return p.qkv.data + b * p.qkv.stride[0] + h * p.qkv.stride[5]; }
  T* out_of(int64_t b, int64_t h) const { return p.out.data + b * p.out.stride[0] + h * p.out.stride[4]; }
  ScoreOf<T>* lse_of(int64_t b, int64_t h) const { return p.lse.data + b * p.lse.stride[0] + h * p.lse.stride[1]; }
  /// Of (batch, window).
  int64_t pairs() const { return B * static_cast<int64_t>(plan.token.size()) / plan.n; }
  /// Whether a class needs a bias tile at all: without bias and mask one row of zeros does.
  bool has_tile(const WindowClass& c) const {
    return p.bias.data || p.bias_table.data ||
           (p.mask_value && std::any_of(c.region.begin(), c.region.end(), [&](int32_t r) { return r != c.region[0]; }));
  }
};

}  // namespace fovea::kernels::cpu
