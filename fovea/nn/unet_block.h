#pragma once
#include <torch/torch.h>

#include "fovea/nn/convolution.h"

namespace fovea::nn {

/// Whether a U-Net block adds its input (projected where the widths differ) before the last activation.
enum class Residual { kNo, kYes };

/// Two 3x3x3 convolutions, each with instance norm and leaky ReLU (0.01).
///   y = lrelu(norm(conv1(x)));  y = norm(conv2(y));  out = lrelu(residual ? y + (conv3 ? norm(conv3(x)) : x) : y)
/// Shapes   x [B,Cin,Z,Y,X] -> [B,Cout,Z,Y,X]
/// Names    conv1.conv.weight, conv2.conv.weight; residual with Cin != Cout: conv3.conv.weight [Cout,Cin,1,1,1]
/// Errors   caller error on a grid of one voxel: its instance norm is not defined
/// Source   Isensee et al. 2018 (nnU-Net), arXiv:1809.10486; Hatamizadeh et al. 2022 (UNETR), arXiv:2103.10504, figure 2
class UnetBlockImpl : public torch::nn::Module {
 public:
  UnetBlockImpl(int64_t in, int64_t out, Residual residual);
  torch::Tensor forward(const torch::Tensor& x);

  Convolution conv1{nullptr}, conv2{nullptr}, conv3{nullptr};
  torch::nn::LeakyReLU lrelu{nullptr};  // the name and the slope; norm and activation are one op

 private:
  Residual residual_;
};
TORCH_MODULE(UnetBlock);

/// The same under MONAI's extra level of names: layer.conv1.conv.weight ...
class UnetrBasicBlockImpl : public torch::nn::Module {
 public:
  UnetrBasicBlockImpl(int64_t in, int64_t out, Residual residual);
  torch::Tensor forward(const torch::Tensor& x);

  UnetBlock layer{nullptr};
};
TORCH_MODULE(UnetrBasicBlock);

/// Doubles the grid, appends the skip connection and convolves.
/// Shapes   x [B,Cin,Z,Y,X], skip [B,Cout,2Z,2Y,2X] -> [B,Cout,2Z,2Y,2X]
/// Names    transp_conv.conv.weight, conv_block.*
class UnetrUpBlockImpl : public torch::nn::Module {
 public:
  UnetrUpBlockImpl(int64_t in, int64_t out, Residual residual);
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& skip);

  UpConvolution transp_conv{nullptr};
  UnetBlock conv_block{nullptr};
};
TORCH_MODULE(UnetrUpBlock);

/// Doubles the grid 1 + `layers` times: the way of UNETR's tokens to a finer grid.
/// Shapes   x [B,Cin,Z,Y,X] -> [B,Cout,Z*2^(1+layers),...]
/// Names    transp_conv_init.conv.weight; with a convolution after each doubling blocks.i.0.conv.weight and blocks.i.1.*,
///          else blocks.i.conv.weight
class UnetrProjectionUpBlockImpl : public torch::nn::Module {
 public:
  UnetrProjectionUpBlockImpl(int64_t in, int64_t out, int64_t layers, bool convolve, Residual residual);
  torch::Tensor forward(torch::Tensor x);

  UpConvolution transp_conv_init{nullptr};
  torch::nn::ModuleList blocks{nullptr};

 private:
  bool convolve_;
};
TORCH_MODULE(UnetrProjectionUpBlock);

/// 1x1x1 convolution to class logits. Names conv.conv.weight, conv.conv.bias.
class UnetOutBlockImpl : public torch::nn::Module {
 public:
  UnetOutBlockImpl(int64_t in, int64_t out);
  torch::Tensor forward(const torch::Tensor& x);

  Convolution conv{nullptr};
};
TORCH_MODULE(UnetOutBlock);

}  // namespace fovea::nn
