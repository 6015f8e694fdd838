#pragma once
#include <torch/torch.h>

#include "fovea/nn/patch_embed.h"
#include "fovea/ops/conv3d.h"

namespace fovea::nn {

struct ConvolutionOptions {
  ConvolutionOptions(int64_t in, int64_t out, int64_t kernel) : in_(in), out_(out), kernel_(kernel) {}
  TORCH_ARG(int64_t, in);
  TORCH_ARG(int64_t, out);
  TORCH_ARG(int64_t, kernel);  ///< edge, odd: the size is kept, padded with zeros
  TORCH_ARG(bool, bias) = false;
};

/// 3-D convolution of stride 1 under the name that MONAI gives it.
/// Shapes   x [B,Cin,Z,Y,X] -> [B,Cout,Z,Y,X], channels last in memory (no copy if x is)
/// Names    conv.weight [Cout,Cin,k,k,k], conv.bias
class ConvolutionImpl : public torch::nn::Module {
 public:
  explicit ConvolutionImpl(const ConvolutionOptions& options);
  torch::Tensor forward(const torch::Tensor& x);

  /// ops::instance_norm_act(forward(x)) with `slope` and `residual`; the convolution takes the statistics on its way.
  /// x is let go of before the norm: move it in where nobody else needs it.
  torch::Tensor normed(torch::Tensor x, double slope = 1, const std::optional<torch::Tensor>& residual = {});

  /// How the last forward computed it: see ops::conv3d_form; "" before one, or where torch did.
  const std::string& form() const { return form_; }

  torch::nn::Conv3d conv{nullptr};

 private:
  ops::KeptConv3dWeights kept_;
  std::string form_;
};
TORCH_MODULE(Convolution);

/// (name, form) of the network's 3x3x3 convolutions that have run, in the order of its modules.
std::vector<std::pair<std::string, std::string>> convolution_forms(const torch::nn::Module& network);

/// Transposed 3-D convolution with kernel = stride = `factor`: every voxel becomes a block, without overlap.
/// Shapes   x [B,Cin,Z,Y,X] -> [B,Cout,Z*f,Y*f,X*f], channels last in memory
/// Names    conv.weight [Cin,Cout,f,f,f]; no bias
class UpConvolutionImpl : public torch::nn::Module {
 public:
  UpConvolutionImpl(int64_t in, int64_t out, int64_t factor);
  torch::Tensor forward(const torch::Tensor& x);
  /// forward(x) and skip [B,Cs,Z*f,Y*f,X*f], concatenated along the channels.
  torch::Tensor beside(const torch::Tensor& x, const torch::Tensor& skip);

  torch::nn::ConvTranspose3d conv{nullptr};

 private:
  int64_t factor_;
};
TORCH_MODULE(UpConvolution);

}  // namespace fovea::nn
