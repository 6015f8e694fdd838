#pragma once
#include <array>

#include <torch/torch.h>

namespace fovea::nn {

/// Lengths along the axes, in tensor order.
using Triple = std::array<int64_t, 3>;  // Z, Y, X

struct PatchEmbedOptions {
  PatchEmbedOptions(int64_t in_channels, int64_t dim) : in_channels_(in_channels), dim_(dim) {}
  TORCH_ARG(int64_t, in_channels);
  TORCH_ARG(int64_t, dim);
  TORCH_ARG(Triple, patch) = {2, 2, 2};
  TORCH_ARG(bool, norm) = false;
};

/// Cuts a volume into patches and projects each to a token: a convolution whose kernel and stride are the patch.
/// The far end of an axis that the patch does not divide is padded with zeros.
/// Shapes   x [B,Cin,Z,Y,X] -> [B,E,ceil(Z/pz),ceil(Y/py),ceil(X/px)]
/// Names    proj.weight [E,Cin,pz,py,px], proj.bias; with norm, norm.weight, norm.bias (over E)
/// Source   Liu et al. 2021 (Swin), arXiv:2103.14030, section 3.1
class PatchEmbedImpl : public torch::nn::Module {
 public:
  explicit PatchEmbedImpl(const PatchEmbedOptions& options);
  torch::Tensor forward(torch::Tensor x);

  torch::nn::Conv3d proj{nullptr};
  torch::nn::LayerNorm norm{nullptr};

 private:
  Triple patch_;
};
TORCH_MODULE(PatchEmbed);

/// x [B,C,Z,Y,X] with zeros added at the far ends so that every axis is a multiple of `multiple`.
torch::Tensor pad_to_multiple(const torch::Tensor& x, const Triple& multiple);

}  // namespace fovea::nn
