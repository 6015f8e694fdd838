#include "fovea/nn/transformer_block.h"

#include "fovea/nn/linear.h"
#include "fovea/nn/trace.h"
#include "fovea/ops/attention.h"

namespace fovea::nn {

SelfAttentionImpl::SelfAttentionImpl(const SelfAttentionOptions& options) : heads_(options.heads()) {
  const int64_t dim = options.dim();
  TORCH_CHECK(heads_ > 0 && dim % heads_ == 0, "self_attention: dim is ", dim, ", expected a multiple of the ", heads_, " heads");
  qkv = register_module("qkv", torch::nn::Linear(torch::nn::LinearOptions(dim, 3 * dim).bias(options.qkv_bias())));
  out_proj = register_module("out_proj", torch::nn::Linear(dim, dim));
  drop_output_ = register_module("drop_output", torch::nn::Dropout(options.dropout()));
  if (options.temperature())
    temperature = register_module("temperature", HeadTemperature(HeadTemperatureOptions(heads_)));
}

torch::Tensor SelfAttentionImpl::forward(const torch::Tensor& x) {
  return traced(this, drop_output_(linear(attend(x, nullptr), out_proj)));
}

torch::Tensor SelfAttentionImpl::add_to(const torch::Tensor& x, const torch::nn::LayerNorm& norm) {
  const bool drops = is_training() && drop_output_->options.p() > 0;
  if (drops || tracing()) return x + traced(this, drop_output_(linear(attend(x, norm), out_proj)));
  return linear(attend(x, norm), out_proj, nullptr, x);
}

torch::Tensor SelfAttentionImpl::attend(const torch::Tensor& x, const torch::nn::LayerNorm& norm) {
  // b n (3 h c) -> 3 b h n c
  const auto parts = linear(x, qkv, norm).view({x.size(0), x.size(1), 3, heads_, x.size(2) / heads_}).permute({2, 0, 3, 1, 4});
  const auto q = temperature ? temperature(parts[0]) : parts[0], k = parts[1], v = parts[2];
  if (capture_) {
    q_ = q.detach();
    k_ = k.detach();
  }
  // b h n c, tokens before heads in memory
  return std::get<0>(ops::attention(q, k, v)).transpose(1, 2).reshape(x.sizes());
}

void SelfAttentionImpl::set_capture(bool on) {
  capture_ = on;
  if (!on) q_ = k_ = torch::Tensor();
}

torch::Tensor SelfAttentionImpl::rows(const torch::Tensor& queries) const {
  TORCH_CHECK(q_.defined(), "self_attention: rows() without a captured forward; call set_capture(true) before it");
  return ops::attention_rows(q_, k_, queries);
}

TransformerBlockImpl::TransformerBlockImpl(const SelfAttentionOptions& attention, int64_t mlp_dim) {
  const int64_t dim = attention.dim();
  const auto norm = [&] { return torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim})); };
  mlp = register_module("mlp", Mlp(MlpOptions(dim, mlp_dim).dropout(attention.dropout())));
  norm1 = register_module("norm1", norm());
  attn = register_module("attn", SelfAttention(attention));
  norm2 = register_module("norm2", norm());
  norm_cross_attn = register_module("norm_cross_attn", norm());
  for (auto& parameter : norm_cross_attn->parameters()) parameter.requires_grad_(false);
}

torch::Tensor TransformerBlockImpl::forward(torch::Tensor x) {
  x = attn->add_to(x, norm1);
  return traced(this, mlp->add_to(x, norm2));
}

}  // namespace fovea::nn
