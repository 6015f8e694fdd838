#include "fovea/nn/linear.h"

#include <ATen/autocast_mode.h>

#include "fovea/core/isa.h"
#include "fovea/ops/linear.h"

namespace fovea::nn {

bool fused_on_cpu(const torch::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == torch::kFloat && chosen_isa() != Isa::kBaseline && !at::autocast::is_autocast_enabled(at::kCPU);
}

torch::Tensor linear(const torch::Tensor& x, const torch::nn::Linear& layer, const torch::nn::LayerNorm& norm, const torch::Tensor& residual) {
  if (fused_on_cpu(x)) {
    ops::OptionalTensor norm_weight, norm_bias;
    if (norm) norm_weight = norm->weight, norm_bias = norm->bias;
    return ops::linear(x, layer->weight, ops::or_none(layer->bias), norm_weight, norm_bias, norm ? norm->options.eps() : 0, ops::or_none(residual));
  }
  auto y = torch::nn::Linear(layer)->forward(norm ? torch::nn::LayerNorm(norm)->forward(x) : x);
  return residual.defined() ? residual + y : y;
}

}  // namespace fovea::nn
