#pragma once
#include <optional>

#include <torch/torch.h>

namespace fovea::nn {

/// linear(norm(x)) + residual, in one pass (ops::linear) on the CPU in float32, else by torch's operators.
/// norm nullptr: x itself; residual undefined: none.
/// Shapes   x [...,I], residual and result [...,O]
torch::Tensor linear(const torch::Tensor& x, const torch::nn::Linear& layer, const torch::nn::LayerNorm& norm = nullptr,
                     const torch::Tensor& residual = {});

/// A layer norm as ops::linear and ops::mlp take it; nullptr: none.
struct NormArguments {
  explicit NormArguments(const torch::nn::LayerNorm& norm);
  std::optional<torch::Tensor> weight, bias;
  double epsilon = 0;
};

/// True where the fused operators of the CPU serve x: float32, outside of autocast.
bool fused_on_cpu(const torch::Tensor& x);

}  // namespace fovea::nn
