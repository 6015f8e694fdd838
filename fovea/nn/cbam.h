#pragma once
#include <torch/torch.h>

namespace fovea::nn {

struct SpatialGateOptions {
  TORCH_ARG(int64_t, kernel) = 7;  ///< edge, odd
  TORCH_ARG(int64_t, axes) = 3;    ///< 2 or 3
};

/// A map of importance over the voxels, made of the largest and the mean channel of each.
///   map = sigmoid(norm(conv([max_c x; mean_c x]))),  out = map * x
/// 2 k^axes weights without bias (98 for k = 7 in 2-D, 2 for k = 1), and the batch norm's two.
/// Shapes   x, out [B,C,Y,X] or [B,C,Z,Y,X]; map [B,1,...]
/// Gradient channels that are alike the largest share its gradient equally: ops::channel_pool
/// Names    spatial.conv.weight [1,2,k,k(,k)], spatial.bn.*, as in Jongchan/attention-module
/// Numerics in evaluation without gradient one fused pass (ops::spatial_gate), channels last
/// Errors   caller error on an even kernel or x of another number of axes
/// Source   Woo et al. 2018 (CBAM), arXiv:1807.06521, equation 3; batch norm of momentum 0.01
class SpatialGateImpl : public torch::nn::Module {
 public:
  explicit SpatialGateImpl(const SpatialGateOptions& options = {});
  torch::Tensor forward(const torch::Tensor& x);
  torch::Tensor map(const torch::Tensor& x);

  torch::Tensor weight;  // that of spatial.conv

 private:
  std::pair<torch::Tensor, torch::Tensor> gated(const torch::Tensor& x);  // out, map

  SpatialGateOptions options_;
  torch::nn::BatchNorm3d bn_{nullptr};
};
TORCH_MODULE(SpatialGate);

struct ChannelGateOptions {
  explicit ChannelGateOptions(int64_t channels) : channels_(channels) {}
  TORCH_ARG(int64_t, channels);
  TORCH_ARG(int64_t, reduction) = 16;  ///< channels over hidden units; at least one unit is left
};

/// Importance of each channel, from its mean and its largest voxel through one perceptron.
///   out = sigmoid(mlp(mean_v x) + mlp(max_v x)) * x,  mlp = Linear -> ReLU -> Linear
/// Shapes   x, out [B,C,Y,X] or [B,C,Z,Y,X]
/// Gradient voxels that are alike the largest share its gradient equally (torch's max pooling gives all to one)
/// Names    mlp.1.{weight,bias}, mlp.3.{weight,bias}
/// Source   Woo et al. 2018, equation 2
class ChannelGateImpl : public torch::nn::Module {
 public:
  explicit ChannelGateImpl(const ChannelGateOptions& options);
  torch::Tensor forward(const torch::Tensor& x);

  torch::nn::Linear in{nullptr}, out{nullptr};
};
TORCH_MODULE(ChannelGate);

struct CbamOptions {
  explicit CbamOptions(int64_t channels) : channels_(channels) {}
  TORCH_ARG(int64_t, channels);
  TORCH_ARG(int64_t, reduction) = 16;
  TORCH_ARG(bool, spatial) = true;  ///< false: the channel gate alone
  TORCH_ARG(SpatialGateOptions, gate);
};

/// Which channels, then where: spatial gate after channel gate.
/// Shapes   x, out [B,C,Y,X] or [B,C,Z,Y,X]
/// Names    ChannelGate.mlp.{1,3}.*, SpatialGate.spatial.*, as in Jongchan/attention-module
/// Source   Woo et al. 2018, equation 1
class CbamImpl : public torch::nn::Module {
 public:
  explicit CbamImpl(const CbamOptions& options);
  torch::Tensor forward(const torch::Tensor& x);

  ChannelGate channel_gate{nullptr};
  SpatialGate spatial_gate{nullptr};
};
TORCH_MODULE(Cbam);

}  // namespace fovea::nn
