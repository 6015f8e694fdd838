#pragma once
#include "fovea/kernels/linear.h"

namespace fovea::kernels {

/// The two-layer perceptron of a transformer block, with exact GELU, its layer norm and its residual.
///   out = gelu(z W1^T + b1) W2^T + b2 [+ x],   z = norm(x),   gelu(h) = h * Phi(h), Phi the normal distribution function
/// Shapes   x [N,E]; weight1 [M,E]; bias1 [M]; weight2 [O,M]; bias2 [O]; out [N,O], O == E with add_input
/// Strides  any between rows; elements of a row are adjacent. out may not overlap an input.
/// Cost     2 N M (E + O) flop; the N*M hidden values never reach memory, a block of rows at a time stays in the cache
/// Source   Hendrycks & Gimpel 2016, arXiv:1606.08415
template <class T>
struct MlpParams {
  View<const T, 2> x{}, weight1{}, weight2{};
  View<const T, 1> bias1{}, bias2{};  // null: 0
  LayerNorm<T> norm{};
  bool add_input = false;
  View<T, 2> out{};
};

/// Gradients of all inputs; null: not wanted. The hidden values are computed again. Cost 2 N M (3E + 2O) flop.
template <class T>
struct MlpBackwardParams {
  MlpParams<T> forward;  // out unused
  View<const T, 2> grad_out{};
  View<T, 2> grad_x{}, grad_weight1{}, grad_weight2{};
  View<T, 1> grad_bias1{}, grad_bias2{};
  LayerNormGradient<T> grad_norm{};
};

namespace reference {
/// The definition: plain loops, double accumulation. T = float or double.
template <class T>
void mlp_forward(const MlpParams<T>& p, const ParallelFor& parallel = serial_for);
template <class T>
void mlp_backward(const MlpBackwardParams<T>& g, const ParallelFor& parallel = serial_for);
}  // namespace reference

namespace cpu {
/// SIMD (AVX2, AVX-512, NEON); same bits for any thread count. Memory beside the tensors: packed weights, a block of
/// hidden rows a thread, and up to 16 partial sums of the weights' gradients.
void mlp_forward(const MlpParams<float>& p, const ParallelFor& parallel, Isa isa = chosen_isa());
void mlp_backward(const MlpBackwardParams<float>& g, const ParallelFor& parallel, Isa isa = chosen_isa());
}  // namespace cpu

}  // namespace fovea::kernels
