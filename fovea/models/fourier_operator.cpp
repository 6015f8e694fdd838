#include "fovea/models/fourier_operator.h"

#include <cmath>

#include "fovea/core/error.h"

namespace fovea::models {

namespace {
// Mixes the channels of each of the low modes of x [B,n,W] by spectrum [W,W,modes], complex; drops the others.
torch::Tensor mix_line(const torch::Tensor& x, const torch::Tensor& spectrum) {
  const int64_t points = x.size(1), modes = spectrum.size(2);
  const auto low = torch::fft_rfft(x, c10::nullopt, 1).slice(1, 0, modes);
  const auto mixed = torch::einsum("bmi,iom->bmo", {low, spectrum});
  return torch::fft_irfft(torch::constant_pad_nd(mixed, {0, 0, 0, points / 2 + 1 - modes}), points, 1);
}

// The same of x [B,n,n,W] by spectrum [W,W,2 modes,modes]: waves up and down along the first axis.
torch::Tensor mix_square(const torch::Tensor& x, const torch::Tensor& spectrum) {
  const int64_t points = x.size(1), modes = spectrum.size(3);
  const auto all = torch::fft_rfft2(x, c10::nullopt, {1, 2}).slice(2, 0, modes);
  const auto low = torch::cat({all.slice(1, 0, modes), all.slice(1, points - modes)}, 1);
  const auto mixed = torch::einsum("bkmi,iokm->bkmo", {low, spectrum});
  const auto none = torch::zeros({x.size(0), points - 2 * modes, modes, mixed.size(3)}, mixed.options());
  const auto whole = torch::cat({mixed.slice(1, 0, modes), none, mixed.slice(1, modes)}, 1);
  return torch::fft_irfft2(torch::constant_pad_nd(whole, {0, 0, 0, points / 2 + 1 - modes}), torch::IntArrayRef({points, points}), {1, 2});
}
}  // namespace

FourierOperatorImpl::FourierOperatorImpl(const FourierOperatorConfig& config) : config_(config) {
  if (config.axes != 1 && config.axes != 2) throw ArgumentError(c10::str("fourier_operator: axes is ", config.axes, ", expected 1 or 2"));
  const std::vector<int64_t> spectrum = config.axes == 1 ? std::vector{config.width, config.width, config.modes, int64_t{2}}
                                                         : std::vector{config.width, config.width, 2 * config.modes, config.modes, int64_t{2}};
  lift_ = register_module("lift", torch::nn::Linear(config.inputs + config.axes, config.width));
  const auto layers = register_module("layers", torch::nn::ModuleList());
  for (int64_t i = 0; i < config.layers; ++i) {
    const auto layer = std::make_shared<torch::nn::Module>();
    weights_.push_back(layer->register_module("weight", torch::nn::Linear(config.width, config.width)));
    spectra_.push_back(layer->register_parameter("spectrum", torch::rand(spectrum) / double(config.width * config.width)));
    layers->push_back(layer);
  }
  read_ = register_module("read", torch::nn::Sequential(torch::nn::Linear(config.width, config.hidden), torch::nn::GELU(), torch::nn::Linear(config.hidden, config.outputs)));
}

torch::Tensor FourierOperatorImpl::forward(const torch::Tensor& f, const torch::Tensor& position) {
  const bool square = config_.axes == 2;
  if (f.dim() != 3 || f.size(2) != config_.inputs || position.sizes() != torch::IntArrayRef({f.size(1), config_.axes}))
    throw ArgumentError(c10::str("fourier_operator: f is ", f.sizes(), ", position ", position.sizes(), ", expected [B,N,", config_.inputs, "] and [N,", config_.axes, "]"));
  const int64_t batch = f.size(0), all = f.size(1), points = square ? std::llround(std::sqrt(double(all))) : all, modes = config_.modes;
  if (square && points * points != all) throw ArgumentError(c10::str("fourier_operator: ", all, " points are no square"));
  if (points < 2 * modes) throw ArgumentError(c10::str("fourier_operator: ", points, " points a side, expected at least ", 2 * modes, " for ", modes, " modes"));
  auto x = lift_(torch::cat({f, position.unsqueeze(0).expand({f.size(0), -1, -1})}, 2));
  for (size_t i = 0; i < weights_.size(); ++i) {
    const auto spectrum = torch::view_as_complex(spectra_[i]);
    x = (square ? mix_square(x.view({batch, points, points, -1}), spectrum).reshape({batch, all, -1}) : mix_line(x, spectrum)) + weights_[i](x);
    if (i + 1 < weights_.size()) x = torch::gelu(x);
  }
  return read_->forward(x);
}

}  // namespace fovea::models
