#pragma once
#include <array>
#include <tuple>

#include "fovea/ops/kernel_tensors.h"

namespace fovea::ops {

/// A linear map with what stands around it in a transformer block, forward and backward in one pass over the rows.
///   out = z W^T + b + residual,   z = layer_norm(x; norm_weight, norm_bias, epsilon), or x without norm_weight
/// Shapes  x [...,I]; weight [O,I]; bias [O]; norm_weight, norm_bias [I]; residual, out [...,O]
/// Dtypes  float32; float64 (the definition); bfloat16 computes in float32
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias = {},
                  const OptionalTensor& norm_weight = {}, const OptionalTensor& norm_bias = {}, double epsilon = 1e-5,
                  const OptionalTensor& residual = {});

/// Gradients of linear() by x, weight, bias, norm_weight and norm_bias; those not `wanted` (in this order) are empty.
/// grad_out [...,O]. Not differentiable.
using LinearGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
LinearGradients linear_backward(const at::Tensor& grad_out, const at::Tensor& x, const at::Tensor& weight,
                                const OptionalTensor& norm_weight, const OptionalTensor& norm_bias, double epsilon,
                                std::array<bool, 5> wanted);

/// The perceptron of a transformer block.
///   out = gelu(z W1^T + b1) W2^T + b2 [+ x with add_input],   z as above
/// Shapes  x [...,E]; weight1 [M,E]; weight2 [O,M]; out [...,O], O == E with add_input
/// Saved for backward: the inputs. The hidden values are computed again.
at::Tensor mlp(const at::Tensor& x, const at::Tensor& weight1, const OptionalTensor& bias1, const at::Tensor& weight2,
               const OptionalTensor& bias2, const OptionalTensor& norm_weight = {}, const OptionalTensor& norm_bias = {},
               double epsilon = 1e-5, bool add_input = false);

}  // namespace fovea::ops
