#include "fovea/nn/qk_norm.h"

#include <cmath>

namespace fovea::nn {

QkNormImpl::QkNormImpl(const QkNormOptions& options) : options_(options) {
  TORCH_CHECK(options.channels() > 0, "qk_norm: channels is ", options.channels(), ", expected at least 1");
  TORCH_CHECK(options.joint_heads() > 0, "qk_norm: joint_heads is ", options.joint_heads(), ", expected at least 1");
  TORCH_CHECK(options.epsilon() >= 0, "qk_norm: epsilon is ", options.epsilon(), ", expected at least 0");
  q_norm_ = register_module("q_norm", std::make_shared<Norm>());
  k_norm_ = register_module("k_norm", std::make_shared<Norm>());
  if (options.kind() == QkNormKind::kL2) {
    const double L = static_cast<double>(options.tokens());
    TORCH_CHECK(L >= 2, "qk_norm: tokens is ", options.tokens(), ", expected at least 2, the usual number of keys");
    g_ = torch::full({1}, std::log2(L * L - L));
    options.affine() ? register_parameter("g", g_) : register_buffer("g", g_);
  }
  if (!options.affine() || options.kind() == QkNormKind::kL2) return;
  for (const auto& norm : {q_norm_, k_norm_}) {
    norm->weight = norm->register_parameter("weight", torch::ones({width()}));
    if (options.kind() == QkNormKind::kLayerNorm)
      norm->bias = norm->register_parameter("bias", torch::zeros({width()}));
  }
}

torch::Tensor QkNormImpl::joined(const torch::Tensor& x) const {
  const int64_t J = options_.joint_heads();
  TORCH_CHECK(x.size(-1) == options_.channels(), "qk_norm: input has ", x.size(-1), " channels, expected ",
              options_.channels());
  if (J == 1) return x;
  TORCH_CHECK(x.dim() >= 3 && x.size(-3) == J, "qk_norm: input of shape ", x.sizes(), " has ",
              x.dim() >= 3 ? x.size(-3) : 0, " heads, expected ", J);
  return x.transpose(-3, -2).flatten(-2);
}

torch::Tensor QkNormImpl::split(const torch::Tensor& x) const {
  if (options_.joint_heads() == 1) return x;
  return x.unflatten(-1, {options_.joint_heads(), options_.channels()}).transpose(-3, -2);
}

torch::Tensor QkNormImpl::size_of(const torch::Tensor& x) const {
  if (options_.kind() == QkNormKind::kL2) return (x.square().sum(-1, /*keepdim=*/true) + options_.epsilon()).sqrt();
  const auto centred = options_.kind() == QkNormKind::kLayerNorm ? x - x.mean(-1, /*keepdim=*/true) : x;
  return (centred.square().mean(-1, /*keepdim=*/true) + options_.epsilon()).sqrt();
}

torch::Tensor QkNormImpl::normalise(const torch::Tensor& x, const Norm& norm) const {
  const auto vectors = joined(x);
  if (options_.kind() == QkNormKind::kLayerNorm)
    return split(torch::layer_norm(vectors, {width()}, norm.weight, norm.bias, options_.epsilon()));
  const auto unit = vectors / size_of(vectors);
  return split(norm.weight.defined() ? unit * norm.weight : unit);
}

std::pair<torch::Tensor, torch::Tensor> QkNormImpl::forward(const torch::Tensor& q, const torch::Tensor& k) {
  const auto normalised = normalise(q, *q_norm_);
  return {g_.defined() ? normalised * g_ : normalised, normalise(k, *k_norm_)};
}

double QkNormImpl::scale() const {
  return options_.kind() == QkNormKind::kL2 ? 1 : 1 / std::sqrt(static_cast<double>(options_.channels()));
}

torch::Tensor QkNormImpl::implicit_temperature(const torch::Tensor& q, const torch::Tensor& k) const {
  const auto sizes = size_of(joined(q)) * size_of(joined(k)).transpose(-1, -2);
  return options_.joint_heads() == 1 ? sizes : sizes.unsqueeze(-3);
}

}  // namespace fovea::nn
