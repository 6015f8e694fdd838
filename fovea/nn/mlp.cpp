#include "fovea/nn/mlp.h"

#include "fovea/nn/linear.h"
#include "fovea/nn/trace.h"
#include "fovea/ops/linear.h"

namespace fovea::nn {

MlpImpl::MlpImpl(const MlpOptions& options) {
  linear1 = register_module("linear1", torch::nn::Linear(options.dim(), options.hidden()));
  linear2 = register_module("linear2", torch::nn::Linear(options.hidden(), options.dim()));
  drop = register_module("drop", torch::nn::Dropout(options.dropout()));
}

torch::Tensor MlpImpl::forward(const torch::Tensor& x) { return traced(this, run(x, nullptr, /*add_input=*/false)); }

torch::Tensor MlpImpl::add_to(const torch::Tensor& x, const torch::nn::LayerNorm& norm) {
  return tracing() ? x + traced(this, run(x, norm, /*add_input=*/false)) : run(x, norm, /*add_input=*/true);
}

torch::Tensor MlpImpl::run(const torch::Tensor& x, const torch::nn::LayerNorm& norm, bool add_input) {
  const bool drops = is_training() && drop->options.p() > 0;
  if (fused_on_cpu(x) && !drops) {
    const NormArguments n(norm);
    return ops::mlp(x, linear1->weight, linear1->bias, linear2->weight, linear2->bias, n.weight, n.bias, n.epsilon, add_input);
  }
  const auto y = drop(linear2(drop(torch::gelu(linear(x, linear1, norm)))));
  return add_input ? x + y : y;
}

}  // namespace fovea::nn
