#pragma once
#include <torch/torch.h>

namespace fovea::models {

struct FactoredAttentionConfig {
  int64_t columns = 0;    // L of the alignment
  int64_t states = 21;    // 20 residues and the gap
  int64_t heads = 32, channels = 16;
};

/// Attention over the columns of one protein family, as a Potts model whose couplings are few head maps times few residue
/// matrices: maps depend on the place alone and are shared by all sequences.
///   A_h = softmax_j(Q_h K_h^T / sqrt(C), j != i);  W[i,a,j,b] = sum_h A_h[i,j] V_h[a,b], made symmetric;  W[i,.,i,.] = 0
///   p(x_i = a | the others) = softmax_a(bias[i,a] + sum_j W[i,a,j,x_j])
/// Shapes   forward: residues [B,L] int64 below `states` -> logits [B,L,states]
/// Names    query, key [H,L,C], value [H,states,states], bias [L,states]
/// Cost     O(L^2 states^2 (H + B)) time, O(L^2 states^2) memory
/// Source   Bhattacharya et al. 2022, "Interpreting Potts and transformer protein models through the lens of simplified
///          attention", section 3
class FactoredAttentionImpl : public torch::nn::Module {
 public:
  explicit FactoredAttentionImpl(const FactoredAttentionConfig& config);
  torch::Tensor forward(const torch::Tensor& residues);
  /// W as [L*states, L*states].
  torch::Tensor couplings();
  /// [L,L]: Frobenius norm of each pair's couplings between residues, gaps left out; without gradient.
  torch::Tensor strengths();
  /// Minus the mean log pseudo-likelihood of a sequence, summed over its columns, plus l2 |W|^2 / 2.
  /// weights: of the sequences [B], or undefined for equal ones.
  torch::Tensor loss(const torch::Tensor& residues, double l2, const torch::Tensor& weights = {});

  torch::Tensor query, key, value, bias;

 private:
  torch::Tensor logits(const torch::Tensor& residues, const torch::Tensor& couplings);

  FactoredAttentionConfig config_;
};
TORCH_MODULE(FactoredAttention);

}  // namespace fovea::models
