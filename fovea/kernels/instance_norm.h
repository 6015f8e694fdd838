#pragma once
#include <cstdint>

#include "fovea/core/isa.h"
#include "fovea/core/parallel.h"
#include "fovea/core/view.h"

namespace fovea::kernels {

/// Instance norm with what usually follows it: an affine map, a residual, a leaky ReLU.
///   z = (x - mean) * rstd,  mean and biased variance over the V voxels of each sample and channel, rstd = (var +
///   epsilon)^-0.5 y = z * weight + bias + residual,   out = y > 0 ? y : slope * y
/// Shapes   x, residual, out [B,V,C] contiguous (channels last); weight, bias [C]; mean, rstd [B,C]
/// Range    0 <= slope <= 1; 1: no activation
/// Numerics chunks of rows in the order of the data, their moments joined in double: same bits for any thread count
/// Source   Ulyanov et al. 2016, arXiv:1607.08022; joining moments: Chan et al. 1979
template <class T>
struct InstanceNormParams {
  View<const T, 3> x;
  View<const T, 1> weight{}, bias{};  // data null: 1 and 0
  View<const T, 3> residual{};        // data null: none
  double slope = 1;
  double epsilon = 1e-5;
  View<T, 3> out{};
  View<T, 2> mean{}, rstd{};        // written by the forward pass
  View<const double, 3> moments{};  // [B,C,2] of x: mean and sum of squared deviations, if something before (conv3d)
                                    // took them already; data null: taken here
};

/// With dy = grad_out * (out > 0 ? 1 : slope):  grad_residual = dy,  grad_bias = sum dy,  grad_weight = sum dy z,
///   grad_x = weight * rstd * (dy - mean(dy) - z * mean(dy z)).
/// x need not be kept: with its data null, and neither weight nor bias, and slope > 0, z comes from out and the residual.
/// Source   Rota Bulo et al. 2018, arXiv:1712.02616 (inverting the activation)
template <class T>
struct InstanceNormBackwardParams {
  InstanceNormParams<T> forward;  // out, mean and rstd as the forward pass left them; residual: only with x null
  View<const T, 3> grad_out{};
  View<T, 3> grad_x{};                    // written
  View<T, 3> grad_residual{};             // data null: not wanted
  View<T, 1> grad_weight{}, grad_bias{};  // data null: not wanted
};

namespace reference {
/// The definition: plain loops, double accumulation. T = float or double.
template <class T>
void instance_norm_forward(const InstanceNormParams<T>& p, const ParallelFor& parallel = serial_for);
template <class T>
void instance_norm_backward(const InstanceNormBackwardParams<T>& p, const ParallelFor& parallel = serial_for);
template <class T>
void instance_moments(const View<const T, 3>& x, const View<double, 3>& moments, const ParallelFor& parallel = serial_for);
}  // namespace reference

namespace cpu {
/// SIMD. Two passes over memory forward (moments, result; one if they are given), two backward.
void instance_norm_forward(const InstanceNormParams<float>& p, const ParallelFor& parallel, Isa isa = chosen_isa());
void instance_norm_backward(const InstanceNormBackwardParams<float>& p, const ParallelFor& parallel,
                            Isa isa = chosen_isa());
/// What InstanceNormParams::moments holds, of x [B,V,C] contiguous. One pass over memory.
void instance_moments(const View<const float, 3>& x, const View<double, 3>& moments, const ParallelFor& parallel,
                      Isa isa = chosen_isa());
}  // namespace cpu

}  // namespace fovea::kernels
