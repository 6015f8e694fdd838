#include "fovea/nn/patch_embed.h"

#include "fovea/nn/trace.h"

namespace fovea::nn {

PatchEmbedImpl::PatchEmbedImpl(const PatchEmbedOptions& options) : patch_(options.patch()) {
  const torch::ExpandingArray<3> patch(patch_);
  proj = register_module("proj", torch::nn::Conv3d(torch::nn::Conv3dOptions(options.in_channels(), options.dim(), patch).stride(patch)));
  if (options.norm()) norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({options.dim()})));
}

torch::Tensor PatchEmbedImpl::forward(torch::Tensor x) {
  x = proj(pad_to_multiple(x, patch_));
  if (norm) x = norm(x.permute({0, 2, 3, 4, 1})).permute({0, 4, 1, 2, 3});
  return traced(this, x);
}

torch::Tensor pad_to_multiple(const torch::Tensor& x, const Triple& multiple) {
  const auto missing = [&](int axis) { return (multiple[axis] - x.size(axis + 2) % multiple[axis]) % multiple[axis]; };
  const int64_t z = missing(0), y = missing(1), x_axis = missing(2);
  return z == 0 && y == 0 && x_axis == 0 ? x : torch::constant_pad_nd(x, {0, x_axis, 0, y, 0, z});
}

}  // namespace fovea::nn
