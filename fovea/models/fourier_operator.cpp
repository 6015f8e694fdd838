#include "fovea/models/fourier_operator.h"

#include "fovea/core/error.h"

namespace fovea::models {

FourierOperatorImpl::FourierOperatorImpl(const FourierOperatorConfig& config) : config_(config) {
  lift_ = register_module("lift", torch::nn::Linear(config.inputs + 1, config.width));
  const auto layers = register_module("layers", torch::nn::ModuleList());
  for (int64_t i = 0; i < config.layers; ++i) {
    const auto layer = std::make_shared<torch::nn::Module>();
    weights_.push_back(layer->register_module("weight", torch::nn::Linear(config.width, config.width)));
    spectra_.push_back(layer->register_parameter("spectrum", torch::rand({config.width, config.width, config.modes, 2}) / double(config.width * config.width)));
    layers->push_back(layer);
  }
  read_ = register_module("read", torch::nn::Sequential(torch::nn::Linear(config.width, config.hidden), torch::nn::GELU(), torch::nn::Linear(config.hidden, config.outputs)));
}

torch::Tensor FourierOperatorImpl::forward(const torch::Tensor& f, const torch::Tensor& position) {
  if (f.dim() != 3 || f.size(2) != config_.inputs || position.sizes() != torch::IntArrayRef({f.size(1), 1}))
    throw ArgumentError(c10::str("fourier_operator: f is ", f.sizes(), ", position ", position.sizes(), ", expected [B,N,", config_.inputs, "] and [N,1]"));
  const int64_t points = f.size(1), modes = config_.modes;
  if (points < 2 * modes) throw ArgumentError(c10::str("fourier_operator: ", points, " points, expected at least ", 2 * modes, " for ", modes, " modes"));
  auto x = lift_(torch::cat({f, position.unsqueeze(0).expand({f.size(0), -1, -1})}, 2));
  for (size_t i = 0; i < weights_.size(); ++i) {
    const auto low = torch::fft_rfft(x, c10::nullopt, 1).slice(1, 0, modes);
    const auto mixed = torch::einsum("bmi,iom->bmo", {low, torch::view_as_complex(spectra_[i])});
    const auto spectral = torch::fft_irfft(torch::constant_pad_nd(mixed, {0, 0, 0, points / 2 + 1 - modes}), points, 1);
    x = spectral + weights_[i](x);
    if (i + 1 < weights_.size()) x = torch::gelu(x);
  }
  return read_->forward(x);
}

}  // namespace fovea::models
