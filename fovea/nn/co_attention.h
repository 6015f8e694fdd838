#pragma once
#include <tuple>
#include <utility>

#include <torch/torch.h>

#include "fovea/nn/mlp.h"
#include "fovea/nn/multi_head_attention.h"

namespace fovea::nn {

/// What parallel co-attention read: a vector of each side, and the weight of each token in it.
struct CoAttended {
  torch::Tensor image, table;                  // [B,E] weighted means of the tokens
  torch::Tensor image_weights, table_weights;  // [B,N], [B,T]: rows that sum to 1; 0 where no token takes part
};

/// Parallel co-attention: one affinity of every pair of tokens steers the attention on both sides at once.
///   C = tanh(t W_b v^T);  H_v = tanh(v W_v + C^T (t W_t));  H_t = tanh(t W_t + C (v W_v))
///   a_v = softmax(H_v w_v);  a_t = softmax(H_t w_t)
/// Shapes   v [B,N,E], t [B,T,E]; masks bool [B,N], [B,T], true = takes part (as in ops::attention): a token that does
///          not is no part of C either. A side without any token reads 0.
/// Names    affinity.weight [E,E] = W_b, image.weight, table.weight [hidden,E], image_score.weight, table_score.weight
///          [1,hidden]; no biases, as in the paper
/// Cost     O(B*N*T*E) time, O(B*N*T) memory: for pooled tokens, not for voxels
/// Errors   ArgumentError: shapes that do not fit
/// Source   Lu et al. 2016 (hierarchical co-attention), arXiv:1606.00061, equations 3 to 5
class ParallelCoAttentionImpl : public torch::nn::Module {
 public:
  /// dim: E; hidden: channels of H_v and H_t.
  ParallelCoAttentionImpl(int64_t dim, int64_t hidden);
  CoAttended forward(const torch::Tensor& image, const torch::Tensor& table, const torch::Tensor& image_mask = {},
                     const torch::Tensor& table_mask = {});

  torch::nn::Linear affinity{nullptr}, image_map{nullptr}, table_map{nullptr}, image_score{nullptr},
      table_score{nullptr};
};
TORCH_MODULE(ParallelCoAttention);

struct CoAttentionOptions {
  CoAttentionOptions(int64_t dim, int64_t heads) : dim_(dim), heads_(heads), other_dim_(dim), hidden_(4 * dim) {}
  TORCH_ARG(int64_t, dim);        ///< E of the first side
  TORCH_ARG(int64_t, heads);      ///< of both
  TORCH_ARG(int64_t, other_dim);  ///< E of the second side
  TORCH_ARG(int64_t, hidden);     ///< of the first side's perceptron; the second's is as wide in proportion
  TORCH_ARG(double, dropout) = 0;
};

/// One side of a co-attention layer: its tokens ask those of the other.
///   y = norm1(x + attn(asking, other, values));  out = norm2(y + mlp(y))
/// values: what is read from the other's tokens where it is not the tokens that keys are made of. asking: what queries
/// are made of where it is not x.
/// Where no token of the other side takes part, attn is its output bias alone: the missing side says nothing, and
/// gives no gradient to queries, keys and values.
/// Names    attn.*, norm1.*, mlp.*, norm2.*
class AskingBlockImpl : public torch::nn::Module {
 public:
  AskingBlockImpl(int64_t dim, int64_t other_dim, int64_t heads, int64_t hidden, double dropout);
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& other, const torch::Tensor& other_mask = {},
                        const torch::Tensor& values = {}, const torch::Tensor& asking = {});

  /// Captures and gives exact rows: attn->set_capture(true), attn->rows(queries).
  MultiHeadAttention attn{nullptr};
  torch::nn::LayerNorm norm1{nullptr}, norm2{nullptr};
  Mlp mlp{nullptr};
};
TORCH_MODULE(AskingBlock);

/// Two cross-attentions that exchange keys and values: both sides ask the other's tokens as they were before.
/// a_position: added to a everywhere but in the keys that b's tokens are asked with: b finds a's tokens by what they are,
/// and reads where they are. Absent: nothing; a may then hold positions itself.
/// b_asking: what b's tokens ask with, absent: themselves. With the names of a table's features (FeatureTokens::names) a
/// feature looks at the same place whatever its value, which it joins to what it read there.
/// Shapes   a [B,N,E], b [B,M,other_dim], a_position [N,E] or [B,N,E], b_asking [M,other_dim] or [B,M,other_dim], masks
///          bool [B,N], [B,M], true = takes part -> both changed
/// Names    first.*, second.* (AskingBlock)
/// Source   Lu et al. 2019 (ViLBERT), arXiv:1908.02265, figure 2b; norms after the sums, as there
class CoAttentionImpl : public torch::nn::Module {
 public:
  explicit CoAttentionImpl(const CoAttentionOptions& options);
  std::pair<torch::Tensor, torch::Tensor> forward(const torch::Tensor& a, const torch::Tensor& b,
                                                  const torch::Tensor& a_mask = {}, const torch::Tensor& b_mask = {},
                                                  const torch::Tensor& a_position = {},
                                                  const torch::Tensor& b_asking = {});

  AskingBlock first{nullptr}, second{nullptr};
};
TORCH_MODULE(CoAttention);

}  // namespace fovea::nn
