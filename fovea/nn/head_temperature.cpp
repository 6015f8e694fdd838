#include "fovea/nn/head_temperature.h"

#include <cmath>

namespace fovea::nn {

HeadTemperatureImpl::HeadTemperatureImpl(const HeadTemperatureOptions& options) : options_(options) {
  const double initial = options.initial_beta(), largest = options.largest_beta();
  TORCH_CHECK(options.heads() > 0, "head_temperature: heads is ", options.heads(), ", expected at least 1");
  TORCH_CHECK(initial > 0, "head_temperature: initial_beta is ", initial, ", expected more than 0");
  TORCH_CHECK(largest == 0 || largest >= initial, "head_temperature: largest_beta is ", largest,
              ", expected 0 (unbounded) or at least initial_beta ", initial);
  logit_scale = register_parameter("logit_scale", torch::full({options.heads(), 1, 1}, std::log(initial)));
}

torch::Tensor HeadTemperatureImpl::beta() const {
  const double largest = options_.largest_beta();
  return (largest > 0 ? logit_scale.clamp_max(std::log(largest)) : logit_scale).exp().flatten();
}

torch::Tensor HeadTemperatureImpl::tau() const { return beta().reciprocal(); }

torch::Tensor HeadTemperatureImpl::forward(const torch::Tensor& q) const {
  TORCH_CHECK(q.dim() == 4 && q.size(1) == options_.heads(), "head_temperature: q is ", q.sizes(), ", expected [B,",
              options_.heads(), ",N,C]");
  return q * beta().view({-1, 1, 1});
}

}  // namespace fovea::nn
