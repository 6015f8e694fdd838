#include "fovea/nn/rotary.h"

namespace fovea::nn {

RotaryImpl::RotaryImpl(const RotaryOptions& options) : options_(options) {
  TORCH_CHECK(options.channels() >= 6, "rotary: channels is ", options.channels(),
              ", expected at least 6: two for each of Z, Y and X");
  TORCH_CHECK(options.base() > 0, "rotary: base is ", options.base(), ", expected more than 0");
}

torch::Tensor RotaryImpl::forward(const torch::Tensor& x, const torch::Tensor& coordinates) const {
  const int64_t channels = options_.channels(), pairs = channels / 6;
  TORCH_CHECK(x.dim() == 4 && x.size(3) == channels, "rotary: x is ", x.sizes(), ", expected [B,H,N,", channels, "]");
  TORCH_CHECK(coordinates.dim() == 2 && coordinates.size(0) == x.size(2) && coordinates.size(1) == 3,
              "rotary: coordinates are ", coordinates.sizes(), ", expected [", x.size(2), ",3] (Z, Y, X of each token)");
  // In double: the angle of a far token must not lose the digits that its sine needs.
  const auto exact = x.options().dtype(torch::kFloat64);
  const auto frequency = torch::pow(options_.base(), -torch::arange(pairs, exact) / double(pairs));
  const auto angle = coordinates.to(exact).unsqueeze(2) * frequency;  // [N,3,pairs]
  const auto type = x.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
  const auto cosine = angle.cos().to(type), sine = angle.sin().to(type);

  const bool half = options_.pairing() == RotaryPairing::kHalf;
  const int pair_axis = half ? -2 : -1;  // of [B,H,N,3,2,pairs] or [B,H,N,3,pairs,2]
  const auto turned = x.slice(3, 0, 6 * pairs).to(type).unflatten(3, half ? at::IntArrayRef({3, 2, pairs})
                                                                          : at::IntArrayRef({3, pairs, 2}));
  const auto first = turned.select(pair_axis, 0), second = turned.select(pair_axis, 1);
  const auto out = torch::stack({first * cosine - second * sine, first * sine + second * cosine}, pair_axis)
                       .flatten(3)
                       .to(x.scalar_type());
  return 6 * pairs == channels ? out : torch::cat({out, x.slice(3, 6 * pairs)}, 3);
}

torch::Tensor grid_coordinates(const Triple& grid) {
  const auto axes = torch::meshgrid({torch::arange(grid[0], torch::kFloat32), torch::arange(grid[1], torch::kFloat32),
                                     torch::arange(grid[2], torch::kFloat32)},
                                    "ij");
  return torch::stack({axes[0].flatten(), axes[1].flatten(), axes[2].flatten()}, 1);
}

}  // namespace fovea::nn
