#include "fovea/nn/qk_norm.h"

namespace fovea::nn {

QkNormImpl::QkNormImpl(const QkNormOptions& options) : options_(options) {
  TORCH_CHECK(options.channels() > 0, "qk_norm: channels is ", options.channels(), ", expected at least 1");
  TORCH_CHECK(options.epsilon() >= 0, "qk_norm: epsilon is ", options.epsilon(), ", expected at least 0");
  q_norm_ = register_module("q_norm", std::make_shared<Norm>());
  k_norm_ = register_module("k_norm", std::make_shared<Norm>());
  if (!options.affine()) return;
  for (const auto& norm : {q_norm_, k_norm_}) {
    norm->weight = norm->register_parameter("weight", torch::ones({options.channels()}));
    if (options.kind() == QkNormKind::kLayerNorm)
      norm->bias = norm->register_parameter("bias", torch::zeros({options.channels()}));
  }
}

torch::Tensor QkNormImpl::size_of(const torch::Tensor& x) const {
  const auto centred = options_.kind() == QkNormKind::kLayerNorm ? x - x.mean(-1, /*keepdim=*/true) : x;
  return (centred.square().mean(-1, /*keepdim=*/true) + options_.epsilon()).sqrt();
}

torch::Tensor QkNormImpl::normalise(const torch::Tensor& x, const Norm& norm) const {
  TORCH_CHECK(x.size(-1) == options_.channels(), "qk_norm: input has ", x.size(-1), " channels, expected ",
              options_.channels());
  if (options_.kind() == QkNormKind::kLayerNorm)
    return torch::layer_norm(x, {options_.channels()}, norm.weight, norm.bias, options_.epsilon());
  const auto unit = x / size_of(x);
  return norm.weight.defined() ? unit * norm.weight : unit;
}

std::pair<torch::Tensor, torch::Tensor> QkNormImpl::forward(const torch::Tensor& q, const torch::Tensor& k) {
  return {normalise(q, *q_norm_), normalise(k, *k_norm_)};
}

torch::Tensor QkNormImpl::implicit_temperature(const torch::Tensor& q, const torch::Tensor& k) const {
  return size_of(q) * size_of(k).transpose(-1, -2);
}

}  // namespace fovea::nn
