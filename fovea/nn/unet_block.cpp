#include "fovea/nn/unet_block.h"

#include "fovea/nn/trace.h"

namespace fovea::nn {
UnetBlockImpl::UnetBlockImpl(int64_t in, int64_t out, Residual residual) : residual_(residual) {
  conv1 = register_module("conv1", Convolution(ConvolutionOptions(in, out, 3)));
  conv2 = register_module("conv2", Convolution(ConvolutionOptions(out, out, 3)));
  lrelu = register_module("lrelu", torch::nn::LeakyReLU(torch::nn::LeakyReLUOptions().negative_slope(0.01)));
  if (residual == Residual::kYes && in != out) conv3 = register_module("conv3", Convolution(ConvolutionOptions(in, out, 1)));
}

torch::Tensor UnetBlockImpl::forward(const torch::Tensor& x) {
  const double slope = lrelu->options.negative_slope();
  auto y = traced(lrelu.get(), conv1->normed(x, slope));
  std::optional<torch::Tensor> shortcut;
  if (residual_ == Residual::kYes) shortcut = conv3 ? conv3->normed(x) : x;
  return traced(this, traced(lrelu.get(), conv2->normed(std::move(y), slope, shortcut)));
}

UnetrBasicBlockImpl::UnetrBasicBlockImpl(int64_t in, int64_t out, Residual residual) {
  layer = register_module("layer", UnetBlock(in, out, residual));
}

torch::Tensor UnetrBasicBlockImpl::forward(const torch::Tensor& x) { return traced(this, layer(x)); }

UnetrUpBlockImpl::UnetrUpBlockImpl(int64_t in, int64_t out, Residual residual) {
  transp_conv = register_module("transp_conv", UpConvolution(in, out, 2));
  conv_block = register_module("conv_block", UnetBlock(2 * out, out, residual));
}

torch::Tensor UnetrUpBlockImpl::forward(const torch::Tensor& x, const torch::Tensor& skip) {
  return traced(this, conv_block(transp_conv->beside(x, skip)));
}

UnetrProjectionUpBlockImpl::UnetrProjectionUpBlockImpl(int64_t in, int64_t out, int64_t layers, bool convolve, Residual residual)
    : convolve_(convolve) {
  transp_conv_init = register_module("transp_conv_init", UpConvolution(in, out, 2));
  blocks = register_module("blocks", torch::nn::ModuleList());
  for (int64_t i = 0; i < layers; ++i) {
    if (convolve) {
      blocks->push_back(torch::nn::ModuleList(UpConvolution(out, out, 2), UnetBlock(out, out, residual)));
    } else {
      blocks->push_back(UpConvolution(out, out, 2));
    }
  }
}

torch::Tensor UnetrProjectionUpBlockImpl::forward(torch::Tensor x) {
  x = transp_conv_init(x);
  for (const auto& block : *blocks) {
    if (convolve_) {
      const auto& pair = *block->as<torch::nn::ModuleList>();
      x = pair[0]->as<UpConvolution>()->forward(x);
      x = pair[1]->as<UnetBlock>()->forward(x);
    } else {
      x = block->as<UpConvolution>()->forward(x);
    }
  }
  return traced(this, x);
}

UnetOutBlockImpl::UnetOutBlockImpl(int64_t in, int64_t out) {
  conv = register_module("conv", Convolution(ConvolutionOptions(in, out, 1).bias(true)));
}

torch::Tensor UnetOutBlockImpl::forward(const torch::Tensor& x) { return traced(this, conv(x)); }

}  // namespace fovea::nn
