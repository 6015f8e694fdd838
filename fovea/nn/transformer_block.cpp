#include "fovea/nn/transformer_block.h"

#include <cmath>

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
  if (options.distance()) distance = register_parameter("distance", torch::linspace(0, -4, heads_));
  scale_ = 1 / std::sqrt(double(dim / heads_));
}

torch::Tensor SelfAttentionImpl::forward(const torch::Tensor& x, const torch::Tensor& places) {
  return traced(this, drop_output_(linear(attend(x, nullptr, places), out_proj)));
}

torch::Tensor SelfAttentionImpl::add_to(const torch::Tensor& x, const torch::nn::LayerNorm& norm, const torch::Tensor& places) {
  const bool drops = is_training() && drop_output_->options.p() > 0;
  if (drops || tracing()) return x + traced(this, drop_output_(linear(attend(x, norm, places), out_proj)));
  return linear(attend(x, norm, places), out_proj, nullptr, x);
}

namespace {
// Five channels of q and of k whose products are -m |p_i - p_j|^2 / scale, 0 from and to tokens that are nowhere.
std::pair<torch::Tensor, torch::Tensor> distance_channels(const torch::Tensor& distance, const torch::Tensor& places, int64_t tokens, double scale) {
  const auto p = places - places.mean(1, /*keepdim=*/true);  // small numbers cancel less
  const auto square = p.square().sum(2, /*keepdim=*/true), one = torch::ones_like(square);
  const auto m = (distance.exp() / scale).view({1, -1, 1, 1});
  const auto q = torch::cat({2 * p, -square, -one}, 2).unsqueeze(1) * m;
  const auto k = torch::cat({p, one, square}, 2).unsqueeze(1).expand_as(q);
  const auto behind_others = [&](const torch::Tensor& t) { return torch::constant_pad_nd(t, {0, 0, tokens - places.size(1), 0}); };
  return {behind_others(q), behind_others(k)};
}
}  // namespace

torch::Tensor SelfAttentionImpl::attend(const torch::Tensor& x, const torch::nn::LayerNorm& norm, const torch::Tensor& places) {
  // b n (3 h c) -> 3 b h n c
  const auto parts = linear(x, qkv, norm).view({x.size(0), x.size(1), 3, heads_, x.size(2) / heads_}).permute({2, 0, 3, 1, 4});
  auto q = temperature ? temperature(parts[0]) : parts[0], k = parts[1];
  const auto v = parts[2];
  if (distance.defined() && places.defined()) {
    TORCH_CHECK(places.dim() == 3 && places.size(0) == x.size(0) && places.size(1) <= x.size(1) && places.size(2) == 3, "self_attention: places are ", places.sizes(), ", expected [",
                x.size(0), ",P,3] with P up to ", x.size(1));
    const auto [of_q, of_k] = distance_channels(distance, places.to(q.scalar_type()), x.size(1), scale_);
    q = torch::cat({q, of_q}, 3), k = torch::cat({k, of_k}, 3);
  }
  if (capture_) {
    q_ = q.detach();
    k_ = k.detach();
  }
  // b h n c, tokens before heads in memory
  return std::get<0>(ops::attention(q, k, v, {}, {}, /*causal=*/false, scale_)).transpose(1, 2).reshape(x.sizes());
}

void SelfAttentionImpl::set_capture(bool on) {
  capture_ = on;
  if (!on) q_ = k_ = torch::Tensor();
}

torch::Tensor SelfAttentionImpl::rows(const torch::Tensor& queries) const {
  TORCH_CHECK(q_.defined(), "self_attention: rows() without a captured forward; call set_capture(true) before it");
  return ops::attention_rows(q_, k_, queries, {}, {}, scale_);
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

torch::Tensor TransformerBlockImpl::forward(torch::Tensor x, const torch::Tensor& places) {
  x = attn->add_to(x, norm1, places);
  return traced(this, mlp->add_to(x, norm2));
}

}  // namespace fovea::nn
