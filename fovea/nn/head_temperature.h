#pragma once
#include <torch/torch.h>

namespace fovea::nn {

struct HeadTemperatureOptions {
  explicit HeadTemperatureOptions(int64_t heads) : heads_(heads) {}
  TORCH_ARG(int64_t, heads);
  TORCH_ARG(double, initial_beta) = 1;
  TORCH_ARG(double, largest_beta) = 0;  ///< 0: unbounded; Swin-v2: 100
};

/// A learned sharpness of each head:
///   weights = softmax(beta_h * scores) = softmax(scores / tau_h)
/// beta and tau = 1 / beta are two names of one thing. A *higher* temperature tau flattens the weights, a higher beta
/// sharpens them: a head that focuses has high beta and low tau. log beta is what is learned, so that beta stays
/// positive and a step changes it by a factor. It is folded into the queries; kernels know nothing of it.
/// Shapes   q [B,H,N,C] -> the same
/// Names    logit_scale [H,1,1] = log beta, as in Swin-v2
/// Source   El-Nouby et al. 2021 (XCiT), arXiv:2106.09681; Liu et al. 2022 (Swin-v2), arXiv:2111.09883, eq. 2
class HeadTemperatureImpl : public torch::nn::Module {
 public:
  explicit HeadTemperatureImpl(const HeadTemperatureOptions& options);
  /// beta_h * q, differentiable in both.
  torch::Tensor forward(const torch::Tensor& q) const;

  /// [H], as they act: not above largest_beta.
  torch::Tensor beta() const;
  torch::Tensor tau() const;

  torch::Tensor logit_scale;

 private:
  HeadTemperatureOptions options_;
};
TORCH_MODULE(HeadTemperature);

}  // namespace fovea::nn
