#pragma once
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include "fovea/nn/qk_norm.h"
#include "fovea/ops/attention.h"

namespace fovea::nn {

/// Puts positions into queries and keys [B,H,N,C], such as a rotary embedding.
using PositionQueriesAndKeys =
    std::function<std::pair<torch::Tensor, torch::Tensor>(const torch::Tensor& q, const torch::Tensor& k)>;

/// Whether queries and keys are normalised before or after positions are put into them. A rotation keeps lengths, so
/// that without gains both are the same for kRms and kL2; a mean it does not keep.
enum class QkNormOrder { kBeforePosition, kAfterPosition };

struct MultiHeadAttentionOptions {
  MultiHeadAttentionOptions(int64_t dim, int64_t heads)
      : dim_(dim), heads_(heads), key_value_heads_(heads), source_dim_(dim) {}
  TORCH_ARG(int64_t, dim);              ///< E, of the queries' tokens and of the result
  TORCH_ARG(int64_t, heads);            ///< H
  TORCH_ARG(int64_t, key_value_heads);  ///< Hk, divides H: each serves H / Hk query heads
  TORCH_ARG(int64_t, source_dim);       ///< of the tokens that keys and values come from
  TORCH_ARG(bool, bias) = true;         ///< of the four linear maps
  TORCH_ARG(std::optional<QkNormKind>, qk_norm) = {};
  TORCH_ARG(bool, qk_norm_affine) = true;        ///< learned gains and shifts, with kL2 the factor
  TORCH_ARG(bool, qk_norm_whole_width) = false;  ///< over all heads' channels together; needs Hk = H
  TORCH_ARG(int64_t, qk_norm_tokens) = 0;        ///< for QkNormKind::kL2: the usual number of keys
  TORCH_ARG(QkNormOrder, qk_norm_order) = QkNormOrder::kBeforePosition;
  TORCH_ARG(PositionQueriesAndKeys, position) = {};
  TORCH_ARG(bool, causal) = false;
  TORCH_ARG(int64_t, window_left) = -1;  ///< keys before and behind a query's place that it sees; negative: all
  TORCH_ARG(int64_t, window_right) = -1;
  TORCH_ARG(std::optional<double>, scale) = {};  ///< default: C^-0.5, with kL2 1
  TORCH_ARG(double, softcap) = 0;
  TORCH_ARG(bool, alibi) = false;            ///< slopes of alibi_slopes(H)
  TORCH_ARG(double, attention_dropout) = 0;  ///< of weights, while training
  TORCH_ARG(double, dropout) = 0;            ///< of the result, while training
};

/// Multi-head attention, self or cross, with every option of ops::attention.
///   out = out_proj(attention(position(norm(q_proj(x))), position(norm(k_proj(source))), v_proj(source)))
/// values: what v is projected from where it is not the source, such as the source with positions, so that attention is
/// by content and what is read says where.
/// Shapes   x, out [B,N,E]; source and values [B,M,source_dim], undefined: x and the source; key_mask bool [B,M], true = takes part; bias
///          broadcastable to [B,H,N,M]
/// Names    {q,k,v,out}_proj.{weight,bias}; with QK-norm qk_norm.* (QkNorm)
/// Dropout  of weights draws a new seed from torch's default CPU generator in each training call.
/// Errors   c10::Error: heads that do not divide the width or each other, source tokens of another width
/// Source   Vaswani et al. 2017, section 3.2; grouped heads: Ainslie et al. 2023 (GQA)
class MultiHeadAttentionImpl : public torch::nn::Module {
 public:
  explicit MultiHeadAttentionImpl(const MultiHeadAttentionOptions& options);
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& source = {}, const torch::Tensor& key_mask = {},
                        const torch::Tensor& bias = {}, const torch::Tensor& values = {});

  /// While on, forward keeps what scores are made of (q, k, mask, bias), so that rows() and queries_and_keys() answer.
  void set_capture(bool on);
  /// Exact attention weights of the last captured forward, before dropout: queries int64 [R] -> [B,H,R,M].
  torch::Tensor rows(const torch::Tensor& queries) const;
  /// q [B,H,N,C] and k [B,Hk,M,C] of the last captured forward, as the op took them.
  std::pair<torch::Tensor, torch::Tensor> queries_and_keys() const;
  /// What their dot products are multiplied with.
  double scale() const { return *attention_.scale; }

  torch::nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, out_proj{nullptr};
  QkNorm qk_norm{nullptr};  ///< null: none

 private:
  struct Captured {
    torch::Tensor q, k;
    std::optional<torch::Tensor> bias, key_mask;
  };
  const Captured& captured(const char* asked) const;

  MultiHeadAttentionOptions options_;
  ops::AttentionOptions attention_;
  torch::nn::Dropout drop_output_{nullptr};
  bool capture_ = false;
  std::optional<Captured> captured_;
};
TORCH_MODULE(MultiHeadAttention);

/// The slopes of ALiBi: 2^(-8 h / H), h = 1 ... H, for a power of two; else those of the next smaller one and every
/// second of twice as many.
/// Source   Press et al. 2022, arXiv:2108.12409, section 3 and the authors' note on other numbers of heads
std::vector<double> alibi_slopes(int64_t heads);

}  // namespace fovea::nn
