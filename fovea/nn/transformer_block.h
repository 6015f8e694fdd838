#pragma once
#include <memory>

#include <torch/torch.h>

#include "fovea/nn/head_temperature.h"
#include "fovea/nn/mlp.h"

namespace fovea::nn {

struct SelfAttentionOptions {
  SelfAttentionOptions(int64_t dim, int64_t heads) : dim_(dim), heads_(heads) {}
  TORCH_ARG(int64_t, dim);
  TORCH_ARG(int64_t, heads);
  TORCH_ARG(bool, qkv_bias) = false;
  TORCH_ARG(double, dropout) = 0;  ///< of the output; attention weights are never dropped
  TORCH_ARG(bool, temperature) = false;  ///< a learned sharpness of each head, from 1: nn::HeadTemperature
  TORCH_ARG(bool, distance) = false;     ///< heads weigh keys down by their distance, each with a learned reach
};

/// Global multi-head self-attention.
///   out = out_proj(attention(q, k, v)),  (q, k, v) = qkv(x)
///   with a distance: scores_h(i, j) = q_i . k_j / sqrt(C) - m_h |p_i - p_j|^2,  m_h = exp(distance_h), from 1 to 1/55: heads
///   begin as Gaussian kernels of several widths. The square is taken apart into five more channels of q and k, so no table
///   of pairs is made.
/// Shapes   x, out [B,N,E]; places [B,P,3], P <= N: where the last P tokens are, in any unit; the tokens before (a class
///          token) are nowhere and keep their scores
/// Names    qkv.weight [3E,E] (and .bias), out_proj.{weight,bias}, with a temperature temperature.logit_scale [H,1,1], with a
///          distance distance [H]
/// Source   Vaswani et al. 2017, section 3.2
class SelfAttentionImpl : public torch::nn::Module {
 public:
  explicit SelfAttentionImpl(const SelfAttentionOptions& options);
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& places = {});
  /// x + forward(norm(x), places).
  torch::Tensor add_to(const torch::Tensor& x, const torch::nn::LayerNorm& norm, const torch::Tensor& places = {});

  /// While on, forward keeps q and k (2E numbers a token), so that rows() can answer.
  void set_capture(bool on);
  /// Exact attention weights of the last captured forward: queries int64 [R] -> [B,H,R,N].
  torch::Tensor rows(const torch::Tensor& queries) const;

  torch::nn::Linear qkv{nullptr}, out_proj{nullptr};
  HeadTemperature temperature{nullptr};
  torch::Tensor distance;

 private:
  torch::Tensor attend(const torch::Tensor& x, const torch::nn::LayerNorm& norm, const torch::Tensor& places);  // what enters out_proj

  int64_t heads_;
  torch::nn::Dropout drop_output_{nullptr};
  bool capture_ = false;
  torch::Tensor q_, k_;  // [B,H,N,C], with a distance five channels more
  double scale_ = 1;
};
TORCH_MODULE(SelfAttention);

/// Pre-norm transformer block.
///   x = x + attn(norm1(x));  out = x + mlp(norm2(x))
/// Names    norm1.*, attn.*, norm2.*, mlp.*, and norm_cross_attn.{weight,bias}, which MONAI stores and never uses: kept so
///          that its state dicts load and go back whole; it is not trained
class TransformerBlockImpl : public torch::nn::Module {
 public:
  TransformerBlockImpl(const SelfAttentionOptions& attention, int64_t mlp_dim);
  /// places: as in SelfAttention.
  torch::Tensor forward(torch::Tensor x, const torch::Tensor& places = {});

  torch::nn::LayerNorm norm1{nullptr}, norm2{nullptr}, norm_cross_attn{nullptr};
  SelfAttention attn{nullptr};
  Mlp mlp{nullptr};
};
TORCH_MODULE(TransformerBlock);

}  // namespace fovea::nn
