#pragma once
#include <torch/torch.h>

namespace fovea::nn {

struct AttentionScoresOptions {
  AttentionScoresOptions(int64_t dim, int64_t hidden) : dim_(dim), hidden_(hidden) {}
  TORCH_ARG(int64_t, dim);           ///< E of a row
  TORCH_ARG(int64_t, hidden);        ///< rows of V (and of U): L in the paper
  TORCH_ARG(int64_t, heads) = 1;     ///< scores a row: 1, or one a class
  TORCH_ARG(bool, gated) = true;
  TORCH_ARG(double, dropout) = 0;    ///< of tanh's and sigmoid's results
};

/// The scores whose softmax over a bag says how much of each row is read, for ops::attention_pool.
///   plain   s = w tanh(V x)          gated   s = w (tanh(V x) * sigmoid(U x))
/// Shapes   x [...,E] -> [...,H]
/// Names    of CLAM and MCAT. gated: attention_a.0, attention_b.0, attention_c; plain: module.0 and module.2 (module.3
///          with dropout)
/// Cost     O(N*E*hidden), no N x N anywhere
/// Source   Ilse et al. 2018, arXiv:1802.04712, equations 8 and 9, with biases as in the authors' code
class AttentionScoresImpl : public torch::nn::Module {
 public:
  explicit AttentionScoresImpl(const AttentionScoresOptions& options);
  torch::Tensor forward(const torch::Tensor& x);

  torch::nn::Linear value{nullptr}, gate{nullptr}, score{nullptr};  ///< V, U (null: not gated), w

 private:
  torch::nn::Dropout drop_{nullptr};
};
TORCH_MODULE(AttentionScores);

}  // namespace fovea::nn
