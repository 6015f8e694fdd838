#include "fovea/nn/volume_tokens.h"

#include "fovea/core/error.h"
#include "fovea/nn/trace.h"

namespace fovea::nn {

VolumeTokensImpl::VolumeTokensImpl(const VolumeTokensOptions& options) : options_(options) {
  if (options.in() < 1 || options.channels() < 1 || options.dim() < 1)
    throw ArgumentError(c10::str("volume_tokens: in is ", options.in(), ", channels ", options.channels(), ", dim ",
                                 options.dim(), ", expected 1 or more each"));
  auto convolutions = register_module("conv", torch::nn::ModuleList());
  auto strided = register_module("down", torch::nn::ModuleList());
  const auto add = [&](int64_t in, int64_t out) {
    conv.push_back(Convolution(ConvolutionOptions(in, out, 3)));
    convolutions->push_back(conv.back());
  };
  int64_t width = options.channels();
  add(options.in(), width);
  for (const Triple& stride : options.strides()) {
    for (int axis = 0; axis < 3; ++axis) {
      if (stride[axis] < 1)
        throw ArgumentError(c10::str("volume_tokens: a stride is ", torch::IntArrayRef(stride), ", expected 1 or more each"));
      cell_[axis] *= stride[axis];
    }
    down.push_back(PatchEmbed(PatchEmbedOptions(width, 2 * width).patch(stride)));
    strided->push_back(down.back());
    width *= 2;
    add(width, width);
  }
  proj = register_module("proj", torch::nn::Linear(width, options.dim()));
  norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({options.dim()})));
}

Triple VolumeTokensImpl::grid_of(const Triple& shape) const {
  Triple grid = shape;
  for (const Triple& stride : options_.strides())
    for (int axis = 0; axis < 3; ++axis) grid[axis] = (grid[axis] + stride[axis] - 1) / stride[axis];
  return grid;
}

TokenGrid VolumeTokensImpl::forward(const torch::Tensor& x) {
  if (x.dim() != 5 || x.size(1) != options_.in())
    throw ArgumentError(c10::str("volume_tokens: volume is ", x.sizes(), ", expected [B,", options_.in(), ",Z,Y,X]"));
  const Triple grid = grid_of({x.size(2), x.size(3), x.size(4)});
  if (grid[0] * grid[1] * grid[2] < 2)
    throw ArgumentError(c10::str("volume_tokens: volume is ", x.sizes(), ", of which cells of ",
                                 torch::IntArrayRef(cell_), " voxels leave ", grid[0] * grid[1] * grid[2],
                                 " tokens, expected 2 or more"));
  constexpr double kSlope = 0.01;
  std::vector<torch::Tensor> levels{conv[0]->normed(x, kSlope)};
  for (size_t level = 0; level < down.size(); ++level)
    levels.push_back(conv[level + 1]->normed(down[level](levels.back()), kSlope));
  const auto tokens = norm(proj(levels.back().permute({0, 2, 3, 4, 1}).flatten(1, 3)));  // B (Z Y X) E
  return {traced(this, tokens), grid, levels};
}

torch::Tensor cell_centres(const Triple& grid, const Triple& cell) {
  std::vector<torch::Tensor> axes;
  for (int axis = 0; axis < 3; ++axis)
    axes.push_back(torch::arange(grid[axis], torch::kFloat64) * cell[axis] + 0.5 * double(cell[axis] - 1));
  const auto at = torch::meshgrid(axes, "ij");
  return torch::stack({at[0].flatten(), at[1].flatten(), at[2].flatten()}, 1);
}

torch::Tensor positions_mm(const torch::Tensor& voxels, const Geometry& geometry) {
  const auto affine = torch::from_blob(const_cast<double*>(geometry.affine[0].data()), {3, 4}, torch::kFloat64).clone();
  const auto xyz = voxels.to(torch::kFloat64).flip(1);
  return torch::matmul(xyz, affine.slice(1, 0, 3).t()) + affine.select(1, 3);
}

}  // namespace fovea::nn
