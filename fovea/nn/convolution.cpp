#include "fovea/nn/convolution.h"

#include "fovea/nn/trace.h"

namespace fovea::nn {

ConvolutionImpl::ConvolutionImpl(const ConvolutionOptions& options) {
  conv = register_module("conv", torch::nn::Conv3d(torch::nn::Conv3dOptions(options.in(), options.out(), options.kernel())
                                                       .padding(options.kernel() / 2)
                                                       .bias(options.bias())));
}

torch::Tensor ConvolutionImpl::forward(const torch::Tensor& x) { return traced(this, conv(x)); }

UpConvolutionImpl::UpConvolutionImpl(int64_t in, int64_t out, int64_t factor) {
  conv = register_module("conv", torch::nn::ConvTranspose3d(
                                     torch::nn::ConvTranspose3dOptions(in, out, factor).stride(factor).bias(false)));
}

torch::Tensor UpConvolutionImpl::forward(const torch::Tensor& x) { return traced(this, conv(x)); }

}  // namespace fovea::nn
