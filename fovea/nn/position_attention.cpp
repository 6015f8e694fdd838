#include "fovea/nn/position_attention.h"

#include <cmath>

#include "fovea/core/error.h"

namespace fovea::nn {

PositionAttentionImpl::PositionAttentionImpl(const PositionAttentionOptions& options) : options_(options) {
  const int64_t sides = options.symmetric() ? 1 : 2, numbers = options.axes() * (2 * options.waves() + (options.periodic() ? 0 : 1));
  if (options.waves() < 0 || numbers == 0) throw ArgumentError(c10::str("position_attention: ", options.waves(), " waves, expected at least 0, and 1 on periodic fields"));
  place_ = register_module("place", torch::nn::Sequential(torch::nn::Linear(numbers, options.hidden()), torch::nn::GELU(),
                                                          torch::nn::Linear(options.hidden(), sides * options.heads() * options.channels())));
  mix = register_parameter("mix", 0.5 * torch::randn({options.heads()}));
  rotary_ = Rotary(RotaryOptions(options.channels()).axes(options.axes()).scale(64).whole_turns(options.periodic()));
}

// What the perceptron reads of positions [N,D].
torch::Tensor PositionAttentionImpl::described(const torch::Tensor& x) const {
  std::vector<torch::Tensor> parts;
  if (!options_.periodic()) parts.push_back(x);
  for (int64_t k = 1; k <= options_.waves(); ++k) {
    const auto angle = (options_.periodic() ? 2 : 1) * M_PI * double(k) * x;
    parts.push_back(angle.cos()), parts.push_back(angle.sin());
  }
  return torch::cat(parts, 1);
}

// R(x) a_h(x): [1,H,N,C]. which: 0 for queries, 1 for keys.
torch::Tensor PositionAttentionImpl::turned(const torch::Tensor& x, int64_t which) {
  const auto both = place_->forward(described(x)).view({x.size(0), -1, options_.heads(), options_.channels()});
  return rotary_->forward(both.select(1, options_.symmetric() ? 0 : which).transpose(0, 1).unsqueeze(0), x);
}

torch::Tensor PositionAttentionImpl::kernel(const torch::Tensor& x, const torch::Tensor& y) {
  for (const auto& t : {x, y})
    if (t.dim() != 2 || t.size(1) != options_.axes()) throw ArgumentError(c10::str("position_attention: coordinates are ", t.sizes(), ", expected [N,", options_.axes(), "]"));
  const auto scores = torch::matmul(turned(x, 0), turned(y, 1).transpose(2, 3)).squeeze(0) / std::sqrt(double(options_.channels()));
  return torch::tensordot(mix, scores, {0}, {0});
}

torch::Tensor PositionAttentionImpl::forward(const torch::Tensor& f, const torch::Tensor& x, const torch::Tensor& y) {
  if (f.dim() != 2 || f.size(1) != y.size(0)) throw ArgumentError(c10::str("position_attention: f is ", f.sizes(), ", expected [B,", y.size(0), "]"));
  return torch::matmul(f, kernel(x, y).t()) / double(y.size(0));
}

}  // namespace fovea::nn
