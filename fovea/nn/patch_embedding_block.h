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
  kSinCos,  ///< fixed; E a multiple of 2 for each axis
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
  TORCH_ARG(int64_t, axes) = 3;  ///< 2: an image, Z = 1; only the fixed positions know the difference
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
  /// The tokens of some patches alone, at the cost of these: kept int64 [B,K] -> [B,K,E].
  /// Errors   x of another size than `image`
  torch::Tensor forward_kept(const torch::Tensor& x, const torch::Tensor& kept);

  const Triple& grid() const { return grid_; }

  torch::Tensor position_embeddings;

 private:
  PatchEmbeddingOptions options_;
  Triple grid_;
  torch::nn::Conv3d convolution_{nullptr};
  torch::nn::Linear perceptron_{nullptr};
  torch::nn::Dropout dropout_{nullptr};
};
TORCH_MODULE(PatchEmbeddingBlock);

/// Volumes cut into patches, each a row of voxels: [B,C,Z,Y,X] -> [B,N,pz*py*px*C], Z slowest, channel fastest. Voxels
/// behind the last whole patch are left out.
torch::Tensor patch_rows(const torch::Tensor& x, const Triple& patch);
/// The volumes again: rows [B,N,pz*py*px*C] of a grid of patches -> [B,C,Z,Y,X].
torch::Tensor volume_of_rows(const torch::Tensor& rows, const Triple& grid, const Triple& patch);

/// The weight of the same linear map for the other form of the projection; biases are the same.
/// Shapes   convolution [E,Cin,pz,py,px], perceptron [E,pz*py*px*Cin]
torch::Tensor perceptron_weight(const torch::Tensor& convolution);
torch::Tensor convolution_weight(const torch::Tensor& perceptron, int64_t in_channels, const Triple& patch);

/// A position table for another token grid, trilinear between the centres of tokens.
/// Shapes   table [1,N,E] with Z slowest -> [1,N',E]; differentiable. The same grid: the table itself
torch::Tensor resize_positions(const torch::Tensor& table, const Triple& from, const Triple& to);

/// Fixed positions of a token grid, [1,N,E] with Z slowest: for each axis sine and cosine of position * 10000^(-k/W),
/// k < W = E / (2 axes), in the order sin Y, cos Y, sin Z, cos Z, sin X, cos X; with 2 axes sin X, cos X, sin Y, cos Y
/// (MONAI's, and He's in two).
/// Errors   caller error if E is no multiple of 2 axes
torch::Tensor sincos_positions(const Triple& grid, int64_t dim, int64_t axes = 3);

}  // namespace fovea::nn
