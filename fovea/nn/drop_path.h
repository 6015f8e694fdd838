#pragma once
#include <torch/torch.h>

namespace fovea::nn {

/// Stochastic depth: in training, a sample's residual branch is dropped with probability `rate`, else divided by 1 - rate.
/// Draws from torch's default generator. Source  Huang et al. 2016, "Deep networks with stochastic depth".
class DropPathImpl : public torch::nn::Module {
 public:
  explicit DropPathImpl(double rate) : rate_(rate) {
    TORCH_CHECK(rate >= 0 && rate < 1, "drop_path: rate is ", rate, ", expected 0 <= rate < 1");
  }

  /// Does nothing to its input.
  bool idle() const { return rate_ == 0 || !is_training(); }

  torch::Tensor forward(const torch::Tensor& x) {
    if (idle()) return x;
    std::vector<int64_t> shape(x.dim(), 1);
    shape[0] = x.size(0);
    return x * torch::empty(shape, x.options()).bernoulli_(1 - rate_).div_(1 - rate_);
  }

 private:
  double rate_;
};
TORCH_MODULE(DropPath);

}  // namespace fovea::nn
