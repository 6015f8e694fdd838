#pragma once
#include <torch/torch.h>

#include "fovea/nn/patch_embed.h"

namespace fovea::nn {

/// How patches become tokens; the same linear map with its inputs in another order.
enum class PatchProjection {
  kConvolution,  ///< patch_embeddings.weight [E,Cin,pz,py,px]
  kPerceptron,   ///< patch_embeddings.1.weight [E,pz*py*px*Cin], channel fastest
};

/// What is added to each token to say where it is.
enum class PositionEmbedding {
  kNone,
  kLearnable,
  kSinCos,  ///< fixed; E a multiple of 6
};

struct PatchEmbeddingOptions {
  PatchEmbeddingOptions(int64_t in_channels, const Triple& image, const Triple& patch, int64_t dim)
      : in_channels_(in_channels), image_(image), patch_(patch), dim_(dim) {}
  TORCH_ARG(int64_t, in_channels);
  TORCH_ARG(Triple, image);  ///< voxels; with kPerceptron a multiple of the patch
  TORCH_ARG(Triple, patch);
  TORCH_ARG(int64_t, dim);
  TORCH_ARG(PatchProjection, projection) = PatchProjection::kConvolution;
  TORCH_ARG(PositionEmbedding, position) = PositionEmbedding::kLearnable;
  TORCH_ARG(double, dropout) = 0;
};

/// Patches of a volume as a row of tokens with positions: the entrance of a vision transformer.
/// Shapes   x [B,Cin,Z,Y,X] -> [B,N,E], N = (Z/pz)(Y/py)(X/px), Z slowest. Voxels behind the last whole patch are left out.
///          For a grid other than that of `image` the positions are interpolated trilinearly.
/// Names    patch_embeddings.*, position_embeddings [1,N,E] (zeros and not trained for kNone, as MONAI stores it)
/// Source   Dosovitskiy et al. 2021 (ViT), arXiv:2010.11929, eq. 1
class PatchEmbeddingBlockImpl : public torch::nn::Module {
 public:
  explicit PatchEmbeddingBlockImpl(const PatchEmbeddingOptions& options);
  torch::Tensor forward(const torch::Tensor& x);

  torch::Tensor position_embeddings;

 private:
  PatchEmbeddingOptions options_;
  Triple grid_;
  torch::nn::Conv3d convolution_{nullptr};
  torch::nn::Linear perceptron_{nullptr};
  torch::nn::Dropout dropout_{nullptr};
};
TORCH_MODULE(PatchEmbeddingBlock);

/// The weight of the same linear map for the other form of the projection; biases are the same.
/// Shapes   convolution [E,Cin,pz,py,px], perceptron [E,pz*py*px*Cin]
torch::Tensor perceptron_weight(const torch::Tensor& convolution);
torch::Tensor convolution_weight(const torch::Tensor& perceptron, int64_t in_channels, const Triple& patch);

/// A position table for another token grid, trilinear between the centres of tokens.
/// Shapes   table [1,N,E] with Z slowest -> [1,N',E]; differentiable. The same grid: the table itself
torch::Tensor resize_positions(const torch::Tensor& table, const Triple& from, const Triple& to);

/// Fixed positions of a token grid, [1,N,E] with Z slowest: for each axis sine and cosine of position * 10000^(-k/(E/6)),
/// k < E/6, in the order sin Y, cos Y, sin Z, cos Z, sin X, cos X (MONAI's).
/// Errors   caller error if E is no multiple of 6
torch::Tensor sincos_positions(const Triple& grid, int64_t dim);

}  // namespace fovea::nn
