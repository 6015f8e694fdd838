#include "fovea/nn/initialise.h"

#include <cmath>

namespace fovea::nn {

void truncated_normal_(torch::Tensor tensor, double std, double low, double high) {
  TORCH_CHECK(std > 0 && low < high, "truncated_normal_: expected std > 0 and low < high; std ", std, ", low ", low, ", high ", high);
  torch::NoGradGuard no_grad;
  const auto below = [std](double x) { return std::erf(x / std / std::sqrt(2.0)); };  // 2 * distribution function - 1
  // erfinv(+-1) is infinite: the clamp brings a draw at the very edge back.
  tensor.uniform_(below(low), below(high)).erfinv_().mul_(std * std::sqrt(2.0)).clamp_(low, high);
}

}  // namespace fovea::nn
