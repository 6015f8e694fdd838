#pragma once
#include <torch/torch.h>

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

namespace fovea::train {

/// How the losses of several tasks become one step.
enum class TaskBalance {
  kFixed,        ///< sum of weight_i L_i
  kUncertainty,  ///< weights learned: UncertaintyWeights
  kPcGrad,       ///< gradients that point against each other lose that part: projected_loss()
};
inline auto config_names(TaskBalance) {
  return std::array{std::pair{TaskBalance::kFixed, "fixed"}, std::pair{TaskBalance::kUncertainty, "uncertainty"},
                    std::pair{TaskBalance::kPcGrad, "pcgrad"}};
}

/// Loss weights as the noise of each task, learned with everything else.
///   loss = sum_i exp(-s_i) L_i / 2 + s_i / 2,   s_i = log sigma_i^2, from 0
/// Names    log_variance [tasks]
/// Source   Kendall et al. 2018, arXiv:1705.07115, in the form of log variances
class UncertaintyWeightsImpl : public torch::nn::Module {
 public:
  explicit UncertaintyWeightsImpl(int64_t tasks);
  /// losses: scalars, one a task; one that is undefined (no label in this batch) takes no part.
  torch::Tensor forward(const std::vector<torch::Tensor>& losses);
  torch::Tensor log_variance;
};
TORCH_MODULE(UncertaintyWeights);

/// A scalar whose gradient is that of PCGrad: each task's gradient loses its component along every other task's gradient
/// that it conflicts with (negative dot product), one after the other, then all are added. Its value is the sum of losses.
///   g_i <- g_i - (g_i . g_j) / |g_j|^2 g_j   where g_i . g_j < 0
/// The others are taken in rising order, not in a random one as in the paper, so that a rerun gives the same bits.
/// Cost     a backward pass a task; the losses must share one graph, which is used up
/// Errors   ArgumentError without parameters
/// Source   Yu et al. 2020, arXiv:2001.06782, algorithm 1
torch::Tensor projected_loss(const std::vector<torch::Tensor>& losses, const std::vector<torch::Tensor>& parameters);

/// What two losses ask of the same weights.
struct GradientAgreement {
  double first_norm = 0, second_norm = 0;
  double cosine = 0;  ///< nan where a norm is 0
};
/// The graph stays.
GradientAgreement gradient_agreement(const torch::Tensor& first, const torch::Tensor& second, const std::vector<torch::Tensor>& parameters);

}  // namespace fovea::train
