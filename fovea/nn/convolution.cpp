#include "fovea/nn/convolution.h"

#include "fovea/nn/linear.h"
#include "fovea/nn/trace.h"
#include "fovea/ops/instance_norm_act.h"
#include "fovea/ops/linear.h"
#include "fovea/ops/up_convolution.h"

namespace fovea::nn {
ConvolutionImpl::ConvolutionImpl(const ConvolutionOptions& options) {
  TORCH_CHECK(options.kernel() % 2 == 1, "convolution: kernel is ", options.kernel(), ", expected an odd number");
  conv =
      register_module("conv", torch::nn::Conv3d(torch::nn::Conv3dOptions(options.in(), options.out(), options.kernel())
                                                    .padding(options.kernel() / 2)
                                                    .bias(options.bias())));
}

torch::Tensor ConvolutionImpl::forward(const torch::Tensor& x) {
  if (conv->weight.size(2) > 1) {
    if (!x.is_cpu()) return traced(this, conv(x));
    form_ = ops::conv3d_form(x, conv->weight);
    return traced(this, kept_.conv3d(x, conv->weight, ops::or_none(conv->bias)));
  }
  // 1x1x1: the same linear map on each voxel.  [B,Z,Y,X,Cin] -> [B,Z,Y,X,Cout]
  const auto voxels = x.permute({0, 2, 3, 4, 1}).contiguous(), weight = conv->weight.flatten(1);
  const auto y = fused_on_cpu(x) ? ops::linear(voxels, weight, ops::or_none(conv->bias)) : torch::linear(voxels, weight, conv->bias);
  return traced(this, y.permute({0, 4, 1, 2, 3}));
}

torch::Tensor ConvolutionImpl::normed(torch::Tensor x, double slope, const std::optional<torch::Tensor>& residual) {
  torch::Tensor y;
  std::optional<torch::Tensor> moments;
  if (conv->weight.size(2) > 1 && fused_on_cpu(x)) {
    form_ = ops::conv3d_form(x, conv->weight);
    std::tie(y, moments) = kept_.conv3d_moments(x, conv->weight, ops::or_none(conv->bias));
    traced(this, y);
  } else {
    y = forward(x);
  }
  x.reset();
  // Autocast may have given the residual another dtype.
  return ops::instance_norm_act(y, {}, {}, slope, residual ? std::optional(residual->to(y.scalar_type())) : residual,
                                /*epsilon=*/1e-5, moments);
}

std::vector<std::pair<std::string, std::string>> convolution_forms(const torch::nn::Module& network) {
  std::vector<std::pair<std::string, std::string>> forms;
  for (const auto& item : network.named_modules())
    if (const auto* convolution = item.value()->as<ConvolutionImpl>(); convolution && !convolution->form().empty())
      forms.emplace_back(item.key(), convolution->form());
  return forms;
}

UpConvolutionImpl::UpConvolutionImpl(int64_t in, int64_t out, int64_t factor) : factor_(factor) {
  conv = register_module("conv", torch::nn::ConvTranspose3d(
                                     torch::nn::ConvTranspose3dOptions(in, out, factor).stride(factor).bias(false)));
}

torch::Tensor UpConvolutionImpl::forward(const torch::Tensor& x) {
  if (fused_on_cpu(x)) return traced(this, ops::up_convolution(x, conv->weight));
  const int64_t f = factor_, out = conv->weight.size(1);
  // A linear map to the f*f*f voxels of each block, which are then put in their places.
  const auto weight =
      conv->weight.permute({2, 3, 4, 1, 0}).reshape({f * f * f * out, x.size(1)});     // (fz fy fx Cout) Cin
  const auto blocks = torch::linear(x.permute({0, 2, 3, 4, 1}).contiguous(), weight);  // B Z Y X (fz fy fx Cout)
  const auto y = blocks.view({x.size(0), x.size(2), x.size(3), x.size(4), f, f, f, out})
                     .permute({0, 1, 4, 2, 5, 3, 6, 7})
                     .reshape({x.size(0), x.size(2) * f, x.size(3) * f, x.size(4) * f, out});
  return traced(this, y.permute({0, 4, 1, 2, 3}));
}

torch::Tensor UpConvolutionImpl::beside(const torch::Tensor& x, const torch::Tensor& skip) {
  if (fused_on_cpu(x) && fused_on_cpu(skip) && !tracing()) return ops::up_convolution(x, conv->weight, skip);
  return torch::cat({forward(x), skip}, 1);
}

}  // namespace fovea::nn
