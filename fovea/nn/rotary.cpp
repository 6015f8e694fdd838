#include "fovea/nn/rotary.h"

#include <cmath>

namespace fovea::nn {

RotaryImpl::RotaryImpl(const RotaryOptions& options) : options_(options) {
  TORCH_CHECK(options.axes() >= 1 && options.channels() >= 2 * options.axes(), "rotary: channels is ", options.channels(),
              ", expected at least ", 2 * options.axes(), ": two for each axis");
  TORCH_CHECK(options.base() > 0, "rotary: base is ", options.base(), ", expected more than 0");
}

torch::Tensor RotaryImpl::forward(const torch::Tensor& x, const torch::Tensor& coordinates) const {
  const int64_t channels = options_.channels(), axes = options_.axes(), pairs = channels / (2 * axes);
  TORCH_CHECK(x.dim() == 4 && x.size(3) == channels, "rotary: x is ", x.sizes(), ", expected [B,H,N,", channels, "]");
  TORCH_CHECK(coordinates.dim() == 2 && coordinates.size(0) == x.size(2) && coordinates.size(1) == axes,
              "rotary: coordinates are ", coordinates.sizes(), ", expected [", x.size(2), ",", axes, "], the place of each token");
  // In double: the angle of a far token must not lose the digits that its sine needs.
  const auto exact = x.options().dtype(torch::kFloat64);
  const auto k = torch::arange(pairs, exact);
  const auto frequency = options_.whole_turns() ? 2 * M_PI * k : options_.scale() * torch::pow(options_.base(), -k / double(pairs));
  const auto angle = coordinates.to(exact).unsqueeze(2) * frequency;  // [N,D,pairs]
  const auto type = x.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
  const auto cosine = angle.cos().to(type), sine = angle.sin().to(type);

  const bool half = options_.pairing() == RotaryPairing::kHalf;
  const int pair_axis = half ? -2 : -1;  // of [B,H,N,D,2,pairs] or [B,H,N,D,pairs,2]
  const auto turned = x.slice(3, 0, 2 * axes * pairs).to(type).unflatten(3, half ? at::IntArrayRef({axes, 2, pairs})
                                                                                : at::IntArrayRef({axes, pairs, 2}));
  const auto first = turned.select(pair_axis, 0), second = turned.select(pair_axis, 1);
  const auto out = torch::stack({first * cosine - second * sine, first * sine + second * cosine}, pair_axis)
                       .flatten(3)
                       .to(x.scalar_type());
  return 2 * axes * pairs == channels ? out : torch::cat({out, x.slice(3, 2 * axes * pairs)}, 3);
}

torch::Tensor grid_coordinates(const Triple& grid) {
  const auto axes = torch::meshgrid({torch::arange(grid[0], torch::kFloat32), torch::arange(grid[1], torch::kFloat32),
                                     torch::arange(grid[2], torch::kFloat32)},
                                    "ij");
  return torch::stack({axes[0].flatten(), axes[1].flatten(), axes[2].flatten()}, 1);
}

}  // namespace fovea::nn
