#include "fovea/nn/continuous_bias.h"

#include <cmath>

namespace fovea::nn {
namespace {
constexpr int64_t kHidden = 512;

Triple displacements(const Triple& window) { return {2 * window[0] - 1, 2 * window[1] - 1, 2 * window[2] - 1}; }
}  // namespace

ContinuousBiasImpl::ContinuousBiasImpl(int64_t heads, const Triple& trained_window) : trained_window_(trained_window) {
  for (const int64_t length : trained_window)
    TORCH_CHECK(length > 0, "continuous_bias: trained_window is ", torch::IntArrayRef(trained_window),
                ", expected 1 or more each");
  first_ = register_module("0", torch::nn::Linear(3, kHidden));
  last_ = register_module("2", torch::nn::Linear(torch::nn::LinearOptions(kHidden, heads).bias(false)));
}

torch::Tensor ContinuousBiasImpl::forward(const Triple& window) {
  const auto coordinates = log_spaced_displacements(window, trained_window_).to(first_->weight.options());
  return 16 * torch::sigmoid(last_(torch::relu(first_(coordinates))));
}

torch::Tensor log_spaced_displacements(const Triple& window, const Triple& trained_window) {
  std::vector<torch::Tensor> axes;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t reach = window[axis] - 1;
    const double edge = double(std::max<int64_t>(trained_window[axis] - 1, 1));
    const auto r = torch::arange(-reach, reach + 1, torch::kFloat64) * (8 / edge);
    axes.push_back(torch::sign(r) * torch::log2(1 + r.abs()) / 3);
  }
  const auto grid = torch::meshgrid(axes, "ij");
  return torch::stack({grid[0].flatten(), grid[1].flatten(), grid[2].flatten()}, 1);
}

torch::Tensor resize_bias_table(const torch::Tensor& table, const Triple& from, const Triple& to) {
  const Triple before = displacements(from), after = displacements(to);
  TORCH_CHECK(table.dim() == 2 && table.size(0) == before[0] * before[1] * before[2], "resize_bias_table: table is ",
              table.sizes(), ", expected [", before[0] * before[1] * before[2], ",H] for the window ",
              torch::IntArrayRef(from));
  for (const int64_t length : to)
    TORCH_CHECK(length > 0, "resize_bias_table: window is ", torch::IntArrayRef(to), ", expected 1 or more each");
  const int64_t heads = table.size(1);
  // (z y x) h -> 1 h z y x and back
  const auto volume = table.t().reshape({1, heads, before[0], before[1], before[2]});
  return torch::upsample_trilinear3d(volume, {after[0], after[1], after[2]}, /*align_corners=*/true)
      .reshape({heads, -1})
      .t()
      .contiguous();
}

}  // namespace fovea::nn
