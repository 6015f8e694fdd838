#pragma once
#include <torch/torch.h>

#include <string>
#include <vector>

namespace fovea::nn {

/// What a token of an alignment attends along. The textbook calls attention across species "row" attention; AlphaFold 2 and
/// ESM call it "column" attention, and that along residues "row" attention: here nothing is called either.
enum class Over {
  kSequences,  ///< across sequences at one position
  kResidues,   ///< along one sequence
};

struct MsaAttentionOptions {
  MsaAttentionOptions(int64_t dim, int64_t heads, Over over) : dim_(dim), heads_(heads), over_(over), head_dim_(dim / std::max<int64_t>(heads, 1)) {}
  TORCH_ARG(int64_t, dim);       ///< E
  TORCH_ARG(int64_t, heads);     ///< H
  TORCH_ARG(Over, over);
  TORCH_ARG(int64_t, head_dim);  ///< C; E / H unless set
  TORCH_ARG(bool, tied) = false;       ///< one map for all sequences (or residues), as in the MSA Transformer
  TORCH_ARG(bool, bias) = true;        ///< of queries, keys and values; AlphaFold 2 has none
  TORCH_ARG(bool, gated) = false;      ///< the result times sigmoid(W_g x), as in AlphaFold 2
  TORCH_ARG(int64_t, pair_dim) = 0;    ///< channels of a pair representation that is added to the scores; 0: none
};

/// Attention along one axis of an alignment, without the norm before it and the residual after it.
///   s = <q_i, k_j> / sqrt(C) (tied: summed over the other axis of length m, / sqrt(C m)) + pair_bias(norm z_ij)
///   out = W_o (softmax_j(s) v [* sigmoid(W_g x)])
/// Shapes   x [B,R,L,E], R sequences of L residues; pair z [B,L,L,pair_dim] (over residues); mask bool [B,R,L], true = takes
///          part -> [B,R,L,E]
/// Names    q_proj, k_proj, v_proj, out_proj: as in ESM's RowSelfAttention and ColumnSelfAttention. g_proj, pair_norm,
///          pair_bias: OpenFold's mha.linear_g, layer_norm_z, linear_z
/// Cost     op axial_attention: O(B R L n E) for n attended tokens, no map is stored
/// Errors   ArgumentError: shapes that do not fit; a pair representation with attention over sequences
/// Source   Rao et al. 2021 (MSA Transformer), eq. 1; Jumper et al. 2021 (AlphaFold 2), supplement, algorithms 7 and 8
class MsaAttentionImpl : public torch::nn::Module {
 public:
  explicit MsaAttentionImpl(const MsaAttentionOptions& options);
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& pair = {}, const torch::Tensor& mask = {});
  /// The one map [B,H,L,L] of tied attention over residues that forward(x) reads with and does not store. Without gradient.
  /// Errors   ArgumentError: attention that is not tied, or over sequences
  torch::Tensor tied_map(const torch::Tensor& x);

  torch::nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, out_proj{nullptr}, g_proj{nullptr}, pair_bias{nullptr};
  torch::nn::LayerNorm pair_norm{nullptr};

 private:
  MsaAttentionOptions options_;
};
TORCH_MODULE(MsaAttention);

/// Attention over sequences whose query is the mean of a position's sequences, with one head of keys and values: linear in
/// the number of sequences, for AlphaFold 2's extra stack.
/// Shapes   x [B,R,L,E], mask bool [B,R,L] -> [B,R,L,E]; a position that no sequence has gets 0 before out_proj
/// Names    q_proj, k_proj, v_proj, g_proj, out_proj: OpenFold's linear_q, linear_k, linear_v, linear_g, linear_o
/// Cost     O(B R L E)
/// Source   Jumper et al. 2021, supplement, algorithm 19
class GlobalColumnAttentionImpl : public torch::nn::Module {
 public:
  GlobalColumnAttentionImpl(int64_t dim, int64_t heads, int64_t head_dim);
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& mask = {});

  torch::nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, g_proj{nullptr}, out_proj{nullptr};

 private:
  int64_t heads_, head_dim_;
};
TORCH_MODULE(GlobalColumnAttention);

struct MsaBlockOptions {
  MsaBlockOptions(int64_t dim, int64_t heads) : dim_(dim), heads_(heads), hidden_(4 * dim) {}
  TORCH_ARG(int64_t, dim);
  TORCH_ARG(int64_t, heads);
  TORCH_ARG(int64_t, hidden);
  TORCH_ARG(bool, tied) = true;  ///< of the attention over residues
  /// Which comes first: kResidues as in ESM and AlphaFold 2, kSequences as in the textbook.
  TORCH_ARG(Over, first) = Over::kResidues;
};

/// One layer of the MSA Transformer: x += attention(norm x) over one axis, then over the other, x += fc2 gelu(fc1 norm x).
/// Shapes   x [B,R,L,E], mask bool [B,R,L] -> [B,R,L,E]
/// Names    row_self_attention.{layer_norm,layer}, column_self_attention.{layer_norm,layer},
///          feed_forward_layer.{layer_norm,layer.fc1,layer.fc2}: as in ESM, whatever the order
/// Source   Rao et al. 2021, figure 1
class MsaBlockImpl : public torch::nn::Module {
 public:
  explicit MsaBlockImpl(const MsaBlockOptions& options);
  torch::Tensor forward(torch::Tensor x, const torch::Tensor& mask = {});
  /// The map [B,H,L,L] of the attention over residues, which must be tied and come first.
  torch::Tensor residue_map(const torch::Tensor& x);

 private:
  MsaBlockOptions options_;
  torch::nn::LayerNorm row_norm_{nullptr}, column_norm_{nullptr}, feed_norm_{nullptr};
  MsaAttention row_{nullptr}, column_{nullptr};
  torch::nn::Linear fc1_{nullptr}, fc2_{nullptr};
};
TORCH_MODULE(MsaBlock);

}  // namespace fovea::nn
