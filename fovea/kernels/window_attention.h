#pragma once
#include <array>
#include <cstdint>
#include <optional>

#include "fovea/core/isa.h"
#include "fovea/core/parallel.h"
#include "fovea/core/view.h"
#include "fovea/kernels/attention.h"

namespace fovea::kernels {

using Triple = std::array<int64_t, 3>;  // Z, Y, X

/// Windowed attention on a 3-D token grid, straight from the qkv Linear's output: partition, roll, mask, bias, softmax
/// and reverse are index arithmetic, nothing is rolled or partitioned in memory.
///
/// The grid Z, Y, X is padded at its far ends to a multiple of `window` and rolled by -shift: position u of the padded,
/// rolled axis holds token (u + shift) mod padded. Windows tile the rolled grid; two tokens of a window attend to each
/// other if they lie in the same region, i.e. were neighbours before rolling. On an axis with shift > 0 the regions are
/// [0, P-w), [P-w, P-shift), [P-shift, P) of the rolled positions (P padded length); with shift = 0 there is one
/// region.
///   s[i,j] = scale * <q_i, k_j> + bias[h, rel(i,j)] (+ mask_value if regions differ and mask_value is given)
///   out_i = sum_j softmax_j(s[i,:]) v_j   over the window's tokens j (of i's own region, if mask_value is absent)
/// A padded position takes part as a key with k, v of `pad_token` if that is given, else it is excluded. It is never a
/// query.
///
/// Shapes   qkv [B,Z,Y,X,3,H,C]; out [B,Z,Y,X,H*C] as [B,Z,Y,X,H,C]; lse [B,H,Z,Y,X]; n = wz*wy*wx tokens a window
///          bias_table [(2wz-1)(2wy-1)(2wx-1), H], row ((dz+wz-1)(2wy-1) + dy+wy-1)(2wx-1) + dx+wx-1 for d = pos_i -
///          pos_j or bias [H,n,n] (query, key), tokens of a window in Z, Y, X order; at most one of the two pad_token
///          [3,H,C]
/// Strides  any; the channel axis of the float kernels has stride 1.
/// Cost     O(B*Z*Y*X*n*H*C) time; memory beside the tensors: the expanded bias, O(H*n*n), and O(n*C) a thread.
/// Source   Liu et al. 2021 (Swin), arXiv:2103.14030, eq. 4 and section 3.2; 3-D regions as MONAI's compute_mask.
template <class T>
struct WindowAttentionParams {
  View<const T, 7> qkv;
  View<const ScoreOf<T>, 2> bias_table{};
  View<const ScoreOf<T>, 3> bias{};
  View<const T, 3> pad_token{};
  Triple window{}, shift{};  // 1 <= window, 0 <= shift < window
  double scale = 1;
  std::optional<double> mask_value;  // absent: true exclusion across regions
  View<T, 6> out{};
  View<ScoreOf<T>, 5> lse{};
};

template <class T>
struct WindowAttentionBackwardParams {
  WindowAttentionParams<T> forward;  // out and lse as the forward pass left them
  View<const T, 6> grad_out{};
  View<T, 7> grad_qkv{};         // written
  View<ScoreOf<T>, 2> grad_bias_table{};  // written where data is set; sums have an order fixed by the grid alone
  View<ScoreOf<T>, 3> grad_bias{};
  View<T, 3> grad_pad_token{};  // its q part is 0
};

/// Exact softmax rows of chosen queries, given as flat token indices (z*Y + y)*X + x.
template <class T>
struct WindowAttentionRowsParams {
  WindowAttentionParams<T> forward;  // out, lse unused
  View<const int64_t, 1> queries{};
  View<T, 4> weights{};     // [B,H,R,n]; 0 for keys that take no part
  View<int64_t, 2> keys{};  // [R,n] flat token index of each key, -1 for a padded position
};

/// Tokens of one window in Z, Y, X order of the rolled grid: flat token index (-1: padded position) and region id.
/// The one place where window, shift, padding and regions are decided; every kernel and test calls it.
/// `index` (z, y, x) counts windows of the padded grid. index, region: n entries each.
void window_tokens(const Triple& grid, const Triple& window, const Triple& shift, const Triple& index, int32_t* token,
                   int32_t* region);

/// Windows along each axis of the padded grid.
inline Triple window_counts(const Triple& grid, const Triple& window) {
  return {(grid[0] + window[0] - 1) / window[0], (grid[1] + window[1] - 1) / window[1],
          (grid[2] + window[2] - 1) / window[2]};
}

/// Row of bias_table for each pair (i, j) of a window's tokens: out[i*n + j].
void relative_position_index(const Triple& window, int32_t* out);

namespace reference {
/// The definition: plain loops, double accumulation. T = float, double or BFloat16 (not for rows).
template <class T>
void window_attention_forward(const WindowAttentionParams<T>& p, const ParallelFor& parallel = serial_for);
template <class T>
void window_attention_backward(const WindowAttentionBackwardParams<T>& p, const ParallelFor& parallel = serial_for);
template <class T>
void window_attention_rows(const WindowAttentionRowsParams<T>& p, const ParallelFor& parallel = serial_for);
}  // namespace reference

namespace cpu {
/// SIMD (AVX2, AVX-512, NEON), float accumulation, same bits for any thread count. Backward reads out
/// and lse as the forward pass left them. `isa` picks one instruction set, which the machine must have; kBaseline runs
/// the definition.
template <class T>
void window_attention_forward(const WindowAttentionParams<T>& p, const ParallelFor& parallel,
                              Isa isa = chosen_isa());
template <class T>
void window_attention_backward(const WindowAttentionBackwardParams<T>& p, const ParallelFor& parallel,
                               Isa isa = chosen_isa());
void window_attention_rows(const WindowAttentionRowsParams<float>& p, const ParallelFor& parallel);
}  // namespace cpu

}  // namespace fovea::kernels
