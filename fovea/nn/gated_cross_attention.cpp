#include "fovea/nn/gated_cross_attention.h"

#include "fovea/nn/trace.h"

namespace fovea::nn {

GatedCrossAttentionImpl::GatedCrossAttentionImpl(const GatedCrossAttentionOptions& o) {
  const auto layer_norm = [&] { return torch::nn::LayerNorm(torch::nn::LayerNormOptions({o.dim()})); };
  const auto linear = [](int64_t in, int64_t out) {
    return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(false));
  };
  norm = register_module("norm", layer_norm());
  attn = register_module("attn", MultiHeadAttention(
                                     MultiHeadAttentionOptions(o.dim(), o.heads()).source_dim(o.media_dim()).bias(false)));
  attn_gate = register_parameter("attn_gate", torch::zeros({1}));
  ff_norm = register_module("ff_norm", layer_norm());
  linear1 = register_module("linear1", linear(o.dim(), o.hidden()));
  linear2 = register_module("linear2", linear(o.hidden(), o.dim()));
  ff_gate = register_parameter("ff_gate", torch::zeros({1}));
}

torch::Tensor GatedCrossAttentionImpl::forward(torch::Tensor x, const torch::Tensor& media, const torch::Tensor& media_mask) {
  x = x + torch::tanh(attn_gate) * attn(norm(x), media, media_mask);
  return traced(this, x + torch::tanh(ff_gate) * linear2(torch::gelu(linear1(ff_norm(x)))));
}

}  // namespace fovea::nn
