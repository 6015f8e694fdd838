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
};

/// Global multi-head self-attention.
///   out = out_proj(attention(q, k, v)),  (q, k, v) = qkv(x)
/// Shapes   x, out [B,N,E]
/// Names    qkv.weight [3E,E] (and .bias), out_proj.{weight,bias}, with a temperature temperature.logit_scale [H,1,1]
/// Source   Vaswani et al. 2017, section 3.2
class SelfAttentionImpl : public torch::nn::Module {
 public:
  explicit SelfAttentionImpl(const SelfAttentionOptions& options);
  torch::Tensor forward(const torch::Tensor& x);
  /// x + forward(norm(x)).
  torch::Tensor add_to(const torch::Tensor& x, const torch::nn::LayerNorm& norm);

  /// While on, forward keeps q and k (2E numbers a token), so that rows() can answer.
  void set_capture(bool on);
  /// Exact attention weights of the last captured forward: queries int64 [R] -> [B,H,R,N].
  torch::Tensor rows(const torch::Tensor& queries) const;

  torch::nn::Linear qkv{nullptr}, out_proj{nullptr};
  HeadTemperature temperature{nullptr};

 private:
  torch::Tensor attend(const torch::Tensor& x, const torch::nn::LayerNorm& norm);  // what enters out_proj

  int64_t heads_;
  torch::nn::Dropout drop_output_{nullptr};
  bool capture_ = false;
  torch::Tensor q_, k_;  // [B,H,N,C]
};
TORCH_MODULE(SelfAttention);

/// Pre-norm transformer block.
///   x = x + attn(norm1(x));  out = x + mlp(norm2(x))
/// Names    norm1.*, attn.*, norm2.*, mlp.*, and norm_cross_attn.{weight,bias}, which MONAI stores and never uses: kept so
///          that its state dicts load and go back whole; it is not trained
class TransformerBlockImpl : public torch::nn::Module {
 public:
  TransformerBlockImpl(const SelfAttentionOptions& attention, int64_t mlp_dim);
  torch::Tensor forward(torch::Tensor x);

  torch::nn::LayerNorm norm1{nullptr}, norm2{nullptr}, norm_cross_attn{nullptr};
  SelfAttention attn{nullptr};
  Mlp mlp{nullptr};
};
TORCH_MODULE(TransformerBlock);

}  // namespace fovea::nn
