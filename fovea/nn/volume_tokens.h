#pragma once
#include <vector>

#include <torch/torch.h>

#include "fovea/core/geometry.h"
#include "fovea/nn/convolution.h"
#include "fovea/nn/patch_embed.h"

namespace fovea::nn {

struct VolumeTokensOptions {
  VolumeTokensOptions(int64_t in, int64_t channels, int64_t levels, int64_t dim)
      : in_(in), channels_(channels), dim_(dim), strides_(static_cast<size_t>(levels), Triple{2, 2, 2}) {}
  TORCH_ARG(int64_t, in);                   ///< channels of the volume
  TORCH_ARG(int64_t, channels);             ///< of the first level; each level has twice as many as the one before
  TORCH_ARG(int64_t, dim);                  ///< E
  TORCH_ARG(std::vector<Triple>, strides);  ///< between the levels; {1, 2, 2} where slices are thick
};

/// A volume's tokens and where they come from.
struct TokenGrid {
  torch::Tensor tokens;               // [B,N,E], Z slowest
  Triple grid;                        // N = Z * Y * X
  std::vector<torch::Tensor> levels;  // [B,channels * 2^i,Z,Y,X], finest first: for a decoder's skip connections
};

/// A small 3-D convolutional encoder that ends in tokens, one for each cell of the coarsest level.
///   x = conv(x);  for each level: x = conv(down(x));  tokens = norm(proj(x))
/// conv is a 3x3x3 convolution, instance norm and leaky ReLU (0.01); down a convolution with kernel = stride, so that
/// cells do not overlap. The far end of an axis that a stride does not divide is padded with zeros. The instance norm
/// takes away a factor and an offset that a whole volume has: a quantity in units needs a token of its own.
/// Shapes   x [B,Cin,Z,Y,X] -> tokens [B,N,E]
/// Names    conv.i.conv.weight, down.i.proj.{weight,bias}, proj.{weight,bias}, norm.{weight,bias}
/// Errors   ArgumentError: another number of channels, a volume of which no two tokens are left (the instance norm of
///          one voxel is not defined)
class VolumeTokensImpl : public torch::nn::Module {
 public:
  explicit VolumeTokensImpl(const VolumeTokensOptions& options);
  TokenGrid forward(const torch::Tensor& x);

  /// Voxels along Z, Y, X that a token stands for: the product of the strides.
  const Triple& cell() const { return cell_; }
  /// The token grid of a volume of `shape` voxels.
  Triple grid_of(const Triple& shape) const;

  std::vector<Convolution> conv;
  std::vector<PatchEmbed> down;
  torch::nn::Linear proj{nullptr};
  torch::nn::LayerNorm norm{nullptr};

 private:
  VolumeTokensOptions options_;
  Triple cell_{1, 1, 1};
};
TORCH_MODULE(VolumeTokens);

/// Centres of the cells of a token grid in voxels of the volume, Z, Y, X: [N,3] f64, Z slowest. The first voxel's centre
/// is 0.
torch::Tensor cell_centres(const Triple& grid, const Triple& cell);

/// Voxel positions [N,3] in Z, Y, X (need not be whole) in millimetres of the patient, RAS+: [N,3] f64 x, y, z.
torch::Tensor positions_mm(const torch::Tensor& voxels, const Geometry& geometry);

}  // namespace fovea::nn
