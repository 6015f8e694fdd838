#include "fovea/nn/patch_embedding_block.h"

#include "fovea/nn/initialise.h"
#include "fovea/nn/trace.h"

namespace fovea::nn {

PatchEmbeddingBlockImpl::PatchEmbeddingBlockImpl(const PatchEmbeddingOptions& options) : options_(options) {
  const auto& image = options.image();
  const auto& patch = options.patch();
  const bool perceptron = options.projection() == PatchProjection::kPerceptron;
  for (int axis = 0; axis < 3; ++axis) {
    TORCH_CHECK(patch[axis] > 0 && image[axis] >= patch[axis], "patch_embedding_block: image is ", torch::IntArrayRef(image), ", expected at least the patch ", torch::IntArrayRef(patch));
    TORCH_CHECK(!perceptron || image[axis] % patch[axis] == 0, "patch_embedding_block: image is ", torch::IntArrayRef(image), ", expected multiples of the patch ", torch::IntArrayRef(patch));
    grid_[axis] = image[axis] / patch[axis];
  }
  if (perceptron) {
    // MONAI's Sequential of a rearrangement and the linear map, which is therefore number 1.
    auto sequence = std::make_shared<torch::nn::Module>("patch_embeddings");
    perceptron_ = torch::nn::Linear(options.in_channels() * patch[0] * patch[1] * patch[2], options.dim());
    truncated_normal_(perceptron_->weight);
    torch::nn::init::zeros_(perceptron_->bias);
    sequence->register_module("1", perceptron_);
    register_module("patch_embeddings", sequence);
  } else {
    const torch::ExpandingArray<3> edge(patch);
    convolution_ = register_module("patch_embeddings", torch::nn::Conv3d(torch::nn::Conv3dOptions(options.in_channels(), options.dim(), edge).stride(edge)));
  }
  const bool fixed = options.position() == PositionEmbedding::kSinCos;
  auto positions = fixed ? sincos_positions(grid_, options.dim(), options.axes()) : torch::zeros({1, grid_[0] * grid_[1] * grid_[2], options.dim()});
  const bool learnable = options.position() == PositionEmbedding::kLearnable;
  position_embeddings = register_parameter("position_embeddings", positions, learnable);
  if (learnable) truncated_normal_(position_embeddings);
  dropout_ = register_module("dropout", torch::nn::Dropout(options.dropout()));
}

torch::Tensor PatchEmbeddingBlockImpl::forward(const torch::Tensor& x) {
  const auto& p = options_.patch();
  const Triple grid = {x.size(2) / p[0], x.size(3) / p[1], x.size(4) / p[2]};
  const auto tokens = convolution_ ? convolution_(x).flatten(2).transpose(1, 2) : perceptron_(patch_rows(x, p));
  return traced(this, dropout_(tokens + resize_positions(position_embeddings, grid_, grid)));
}

torch::Tensor PatchEmbeddingBlockImpl::forward_kept(const torch::Tensor& x, const torch::Tensor& kept) {
  const auto& p = options_.patch();
  const Triple grid = {x.size(2) / p[0], x.size(3) / p[1], x.size(4) / p[2]};
  TORCH_CHECK(grid == grid_, "patch_embedding_block: some patches of the grid ", torch::IntArrayRef(grid), ", expected the grid ", torch::IntArrayRef(grid_));
  const auto all = patch_rows(x, p);
  const auto some = all.gather(1, kept.unsqueeze(2).expand({-1, -1, all.size(2)}));
  const auto tokens = convolution_ ? torch::linear(some, perceptron_weight(convolution_->weight), convolution_->bias) : perceptron_(some);
  return traced(this, dropout_(tokens + position_embeddings[0].index_select(0, kept.flatten()).view(tokens.sizes())));
}

torch::Tensor patch_rows(const torch::Tensor& x, const Triple& p) {
  const Triple grid = {x.size(2) / p[0], x.size(3) / p[1], x.size(4) / p[2]};
  // b c (z pz) (y py) (x px) -> b (z y x) (pz py px c)
  return x.slice(2, 0, grid[0] * p[0])
      .slice(3, 0, grid[1] * p[1])
      .slice(4, 0, grid[2] * p[2])
      .reshape({x.size(0), x.size(1), grid[0], p[0], grid[1], p[1], grid[2], p[2]})
      .permute({0, 2, 4, 6, 3, 5, 7, 1})
      .reshape({x.size(0), grid[0] * grid[1] * grid[2], p[0] * p[1] * p[2] * x.size(1)});
}

torch::Tensor volume_of_rows(const torch::Tensor& rows, const Triple& grid, const Triple& p) {
  const int64_t voxels = p[0] * p[1] * p[2];
  TORCH_CHECK(rows.dim() == 3 && rows.size(1) == grid[0] * grid[1] * grid[2] && rows.size(2) % voxels == 0, "volume_of_rows: rows are ", rows.sizes(), ", expected [B,",
              grid[0] * grid[1] * grid[2], ",", voxels, " times the channels]");
  const int64_t channels = rows.size(2) / voxels;
  return rows.reshape({rows.size(0), grid[0], grid[1], grid[2], p[0], p[1], p[2], channels})
      .permute({0, 7, 1, 4, 2, 5, 3, 6})
      .reshape({rows.size(0), channels, grid[0] * p[0], grid[1] * p[1], grid[2] * p[2]});
}

torch::Tensor perceptron_weight(const torch::Tensor& convolution) {
  TORCH_CHECK(convolution.dim() == 5, "perceptron_weight: weight is ", convolution.sizes(), ", expected [E,Cin,pz,py,px]");
  return convolution.permute({0, 2, 3, 4, 1}).flatten(1).contiguous();
}

torch::Tensor convolution_weight(const torch::Tensor& perceptron, int64_t in_channels, const Triple& patch) {
  const int64_t inputs = patch[0] * patch[1] * patch[2] * in_channels;
  TORCH_CHECK(perceptron.dim() == 2 && perceptron.size(1) == inputs, "convolution_weight: weight is ", perceptron.sizes(),
              ", expected [E,", inputs, "] for ", in_channels, " channels and the patch ", torch::IntArrayRef(patch));
  // e (pz py px c) -> e c pz py px
  return perceptron.view({-1, patch[0], patch[1], patch[2], in_channels}).permute({0, 4, 1, 2, 3}).contiguous();
}

torch::Tensor resize_positions(const torch::Tensor& table, const Triple& from, const Triple& to) {
  if (from == to) return table;
  TORCH_CHECK(table.dim() == 3 && table.size(0) == 1 && table.size(1) == from[0] * from[1] * from[2],
              "resize_positions: table is ", table.sizes(), ", expected [1,N,E] for the grid ", torch::IntArrayRef(from));
  const auto volume = table.view({1, from[0], from[1], from[2], table.size(2)}).permute({0, 4, 1, 2, 3});
  return torch::upsample_trilinear3d(volume, {to[0], to[1], to[2]}, /*align_corners=*/false).flatten(2).transpose(1, 2);
}

torch::Tensor sincos_positions(const Triple& grid, int64_t dim, int64_t axes) {
  TORCH_CHECK(axes == 2 || axes == 3, "sincos_positions: ", axes, " axes, expected 2 or 3");
  TORCH_CHECK(dim > 0 && dim % (2 * axes) == 0, "sincos_positions: dim is ", dim, ", expected a multiple of ", 2 * axes);
  const int64_t waves = dim / (2 * axes);
  const auto frequency = torch::pow(10000.0, -torch::arange(waves, torch::kFloat) / waves);
  std::vector<torch::Tensor> parts;
  for (const int axis : axes == 3 ? std::vector<int>{1, 0, 2} : std::vector<int>{2, 1}) {
    std::vector<int64_t> shape(4, 1);
    shape[axis] = grid[axis];
    const auto angle = torch::arange(grid[axis], torch::kFloat).view(shape) * frequency;  // broadcasts to [Z,Y,X,waves]
    for (const auto& wave : {torch::sin(angle), torch::cos(angle)}) parts.push_back(wave.expand({grid[0], grid[1], grid[2], waves}));
  }
  return torch::cat(parts, -1).reshape({1, -1, dim});
}

}  // namespace fovea::nn
