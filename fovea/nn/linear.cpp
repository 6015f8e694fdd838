#include "fovea/nn/linear.h"

#include <ATen/autocast_mode.h>

#include "fovea/core/isa.h"
#include "fovea/ops/linear.h"

namespace fovea::nn {

bool fused_on_cpu(const torch::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == torch::kFloat && chosen_isa() != Isa::kBaseline && !at::autocast::is_autocast_enabled(at::kCPU);
}

NormArguments::NormArguments(const torch::nn::LayerNorm& norm) {
  if (norm) weight = norm->weight, bias = norm->bias, epsilon = norm->options.eps();
}

torch::Tensor linear(const torch::Tensor& x, const torch::nn::Linear& layer, const torch::nn::LayerNorm& norm, const torch::Tensor& residual) {
  if (fused_on_cpu(x)) {
    const NormArguments n(norm);
    return ops::linear(x, layer->weight, ops::or_none(layer->bias), n.weight, n.bias, n.epsilon, ops::or_none(residual));
  }
  auto y = torch::nn::Linear(layer)->forward(norm ? torch::nn::LayerNorm(norm)->forward(x) : x);
  return residual.defined() ? residual + y : y;
}

}  // namespace fovea::nn
