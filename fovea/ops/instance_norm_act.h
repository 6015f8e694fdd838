#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

namespace fovea::ops {

/// Instance norm, affine map, residual and leaky ReLU in one go. Torch op `fovea::instance_norm_act`.
///   y = (x - mean) / sqrt(var + epsilon) * weight + bias + residual;  out = y > 0 ? y : slope * y
/// Shapes   x, residual, out [B,C,Z,Y,X]; weight, bias [C]; mean and (biased) variance of each sample and channel
///          moments [B,C,2] float64 of x, as ops::conv3d_moments gives them; absent: taken here, one more pass over x
/// Range    0 <= slope <= 1; 1: no activation
/// Gradient x (through its moments too), weight, bias, residual; not differentiable twice. Saved for backward: out, mean,
///          rstd, and x, or the residual where z is found again from out (f32 and f64 without affine map).
/// Dtypes   all alike f32; f64 (reference kernel); bf16 (computed in f32 on a converted copy)
/// Layout   out and gradients are channels last in memory; inputs of another layout are copied
/// Numerics same bits for any number of threads
/// Errors   caller error on rank, size, dtype or device, and on a grid of one voxel, whose norm is not defined
/// Source   Ulyanov et al. 2016, arXiv:1607.08022. Definition: kernels/reference/instance_norm.cpp
at::Tensor instance_norm_act(const at::Tensor& x, const std::optional<at::Tensor>& weight = {}, const std::optional<at::Tensor>& bias = {},
                             double slope = 1, const std::optional<at::Tensor>& residual = {}, double epsilon = 1e-5,
                             const std::optional<at::Tensor>& moments = {});

}  // namespace fovea::ops
