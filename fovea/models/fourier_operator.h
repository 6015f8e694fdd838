#pragma once
#include <torch/torch.h>

#include <vector>

namespace fovea::models {

struct FourierOperatorConfig {
  int64_t inputs = 1, outputs = 1;
  int64_t axes = 1;  // 1 or 2
  int64_t width = 24, modes = 12, layers = 4, hidden = 64;
};

/// Fourier neural operator, the baseline of operator learning on evenly spaced points of an interval or a square.
///   x = lift([f, position]);  x = gelu(W x + F^-1(R_m F(x)_m, |m| < modes))  per layer, the last without gelu;  u = read(x)
/// Shapes   f [B,N,inputs], position [N,axes] -> [B,N,outputs]; n >= 2 modes points a side, N = n or n^2, the last axis fastest
/// Names    lift.*, layers.I.{weight.*, spectrum}, read.{0,2}.*; spectrum [width,width,modes,2], in 2-D [width,width,2 modes,modes,2]
/// Errors   ArgumentError: shapes that do not fit, fewer points than twice the modes
/// Source   Li et al. 2021 (FNO), arXiv:2010.08895
class FourierOperatorImpl : public torch::nn::Module {
 public:
  explicit FourierOperatorImpl(const FourierOperatorConfig& config);
  torch::Tensor forward(const torch::Tensor& f, const torch::Tensor& position);

 private:
  FourierOperatorConfig config_;
  torch::nn::Linear lift_{nullptr};
  std::vector<torch::nn::Linear> weights_;
  std::vector<torch::Tensor> spectra_;
  torch::nn::Sequential read_{nullptr};
};
TORCH_MODULE(FourierOperator);

}  // namespace fovea::models
