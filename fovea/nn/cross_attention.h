#pragma once
#include <limits>

#include <torch/torch.h>

namespace fovea::nn {

struct CrossAttentionOptions {
  CrossAttentionOptions(int64_t dim, int64_t heads) : dim_(dim), heads_(heads), source_dim_(dim) {}
  TORCH_ARG(int64_t, dim);         ///< E, of the tokens that ask
  TORCH_ARG(int64_t, heads);       ///< H
  TORCH_ARG(int64_t, source_dim);  ///< of the tokens that are asked
  TORCH_ARG(double, radius_mm) = std::numeric_limits<double>::infinity();  ///< how far a token asks; infinite: everywhere
  TORCH_ARG(double, unit_mm) = 4;           ///< displacements well below it look alike to the bias
  TORCH_ARG(int64_t, bias_hidden) = 16;     ///< of the bias' perceptron
  TORCH_ARG(int64_t, queries_at_once) = 4096;  ///< whose scores' bias is in memory together
};

/// What the tokens of one grid read off another.
struct CrossAttended {
  torch::Tensor tokens;  // [B,N,E]
  torch::Tensor gate;    // [B,N]: share of the attention that went to the source and not to the missing token, mean over
                         // heads; 0 where there is nothing to read. Exact, without gradient
};

/// Tokens of one grid ask those of another grid, spacing and orientation: positions are millimetres of the patient, and
/// the bias is a smooth function of the physical displacement.
///   s[h,i,j] = <q_i, k_j> / sqrt(C) + b_h(p_j - p_i),  j over the source's tokens not further than radius_mm,
///   s[h,i,0] = <q_i, k_0> / sqrt(C)                    and a learned token for "nothing there"
///   out_i    = x_i + out_proj(sum_j softmax_j(s) v_j),  b_h = perceptron(sign(d) log2(1 + |d| / unit_mm)) along x, y, z
/// The missing token is always among the keys, so that the layer can close itself to a source that says nothing; where
/// the source is missing, or its grid lies elsewhere, it is all that is left.
/// Shapes   x [B,N,E], source [B,M,source_dim] (M may be 0); positions x_mm [N,3], source_mm [M,3] of any floating type,
///          the same for the whole batch (nn::positions_mm); source_mask bool [B,M], true = takes part
/// Names    {q,k,v,out}_proj.*, missing [source_dim], bias.{0.weight [hidden,3],0.bias,2.weight [H,hidden]}
/// Errors   ArgumentError: shapes that do not fit, a position that is not finite
/// Cost     O(B*N*M'*E) time and O(H*queries_at_once*M') memory beside the tokens, M' the source's tokens within
///          radius_mm of the box around as many successive queries: of all, without a radius
/// Source   the pieces: Vaswani et al. 2017; Liu et al. 2022 (Swin-v2), arXiv:2111.09883, equations 3 and 4, in mm
class CrossAttentionImpl : public torch::nn::Module {
 public:
  explicit CrossAttentionImpl(const CrossAttentionOptions& options);
  CrossAttended forward(const torch::Tensor& x, const torch::Tensor& x_mm, const torch::Tensor& source,
                        const torch::Tensor& source_mm, const torch::Tensor& source_mask = {});

  /// The softmax itself, every weight in memory and differentiable, the missing token first: [B,H,N,1+M]. For an objective
  /// on where a few tokens look. Arguments as in forward.
  torch::Tensor weights(const torch::Tensor& x, const torch::Tensor& x_mm, const torch::Tensor& source,
                        const torch::Tensor& source_mm, const torch::Tensor& source_mask = {}) const;

  /// While on, forward keeps queries, keys and positions, so that rows() can answer.
  void set_capture(bool on);
  /// Exact attention weights of the last captured forward: queries int64 [R] -> [B,H,R,1+M], the missing token first.
  torch::Tensor rows(const torch::Tensor& queries) const;

  torch::nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, out_proj{nullptr};
  torch::nn::Linear bias_first{nullptr}, bias_last{nullptr};
  torch::Tensor missing;

 private:
  struct Captured {
    torch::Tensor q, k, x_mm, source_mm, mask;
  };
  /// [1,H,n,1+m], -inf beyond the radius.
  torch::Tensor bias(const torch::Tensor& x_mm, const torch::Tensor& source_mm) const;

  CrossAttentionOptions options_;
  bool capture_ = false;
  std::optional<Captured> captured_;
};
TORCH_MODULE(CrossAttention);

/// Where rows [...,1+M] of CrossAttention::rows() look on the source: the mean of its positions [M,3] by their weights,
/// without the missing token: [...,3] f64. NaN where only the missing token was read.
torch::Tensor attended_mm(const torch::Tensor& rows, const torch::Tensor& source_mm);

}  // namespace fovea::nn
