#pragma once
#include <cstdint>

#include "fovea/core/isa.h"
#include "fovea/core/parallel.h"
#include "fovea/core/view.h"

namespace fovea::kernels {

/// Layer norm of rows: z = (x - mean) * rstd * weight + bias over the channels of a row, rstd = (variance + epsilon)^-0.5
/// with the biased variance. Source: Ba et al. 2016, arXiv:1607.06450, eq. 4.
template <class T>
struct LayerNorm {
  View<const T, 1> weight{}, bias{};  // [I]; weight null: no norm, z = x. bias null: 0
  double epsilon = 1e-5;
  bool present() const { return weight.data != nullptr; }
};

template <class T>
struct LayerNormGradient {
  View<T, 1> weight{}, bias{};  // [I], written; null: not wanted
};

/// A linear map of rows with what stands around it in a transformer block.
///   out = z W^T + b + residual,   z = norm(x)
/// Shapes   x [N,I]; weight [O,I]; bias [O]; residual, out [N,O]
/// Strides  any between rows; elements of a row are adjacent. out may not overlap an input.
/// Cost     2 N I O flop; x and residual are read once, out is written once: z stays in the cache
template <class T>
struct LinearParams {
  View<const T, 2> x{}, weight{};
  View<const T, 1> bias{};      // null: 0
  LayerNorm<T> norm{};
  View<const T, 2> residual{};  // null: none
  View<T, 2> out{};
  /// Data null: out lies in rows. Else channel o of row n is out.data[row_offset(n) + group_offset(o / G) + o % G], the O
  /// channels being groups of G: an up-convolution writes each group to a voxel of its own. No residual then.
  View<const int64_t, 1> row_offset{}, group_offset{};

  T& at(int64_t n, int64_t o) const {
    if (!row_offset.data) return out(n, o);
    const int64_t G = weight.shape[0] / group_offset.shape[0];
    return out.data[row_offset(n) + group_offset(o / G) + o % G];
  }
};

/// With g = grad_out: grad_weight = g^T z, grad_bias = sum g, dz = g W, grad_x = the layer norm's gradient of dz.
/// The residual's gradient is g. Null: not wanted. Cost 4 N I O flop.
template <class T>
struct LinearBackwardParams {
  LinearParams<T> forward;  // out and residual unused
  View<const T, 2> grad_out{};
  View<T, 2> grad_x{}, grad_weight{};
  View<T, 1> grad_bias{};
  LayerNormGradient<T> grad_norm{};
};

namespace reference {
/// The definition: plain loops, double accumulation. T = float or double.
template <class T>
void linear_forward(const LinearParams<T>& p, const ParallelFor& parallel = serial_for);
template <class T>
void linear_backward(const LinearBackwardParams<T>& g, const ParallelFor& parallel = serial_for);
}  // namespace reference

namespace cpu {
/// SIMD (AVX2, AVX-512, NEON); same bits for any thread count. Memory beside the tensors: O(I*O) packed weights and up to
/// 16 partial sums of the weight's gradient. `isa` picks one instruction set, which the machine must have.
void linear_forward(const LinearParams<float>& p, const ParallelFor& parallel, Isa isa = chosen_isa());
void linear_backward(const LinearBackwardParams<float>& g, const ParallelFor& parallel, Isa isa = chosen_isa());
}  // namespace cpu

}  // namespace fovea::kernels
