#include "fovea/nn/multi_head_attention.h"

#include <cmath>
#include <limits>

#include "fovea/nn/trace.h"

namespace fovea::nn {

MultiHeadAttentionImpl::MultiHeadAttentionImpl(const MultiHeadAttentionOptions& o) : options_(o) {
  TORCH_CHECK(o.heads() > 0 && o.dim() > 0 && o.dim() % o.heads() == 0, "multi_head_attention: dim is ", o.dim(),
              ", expected a multiple of the ", o.heads(), " heads");
  TORCH_CHECK(o.key_value_heads() > 0 && o.heads() % o.key_value_heads() == 0, "multi_head_attention: heads is ",
              o.heads(), ", expected a multiple of the ", o.key_value_heads(), " key_value_heads");
  TORCH_CHECK(!o.qk_norm_whole_width() || o.key_value_heads() == o.heads(),
              "multi_head_attention: key_value_heads is ", o.key_value_heads(), ", expected ", o.heads(),
              " (heads) with qk_norm_whole_width");
  const int64_t channels = o.dim() / o.heads();
  const auto linear = [&](int64_t in, int64_t out) {
    return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(o.bias()));
  };
  q_proj = register_module("q_proj", linear(o.dim(), o.dim()));
  k_proj = register_module("k_proj", linear(o.source_dim(), o.key_value_heads() * channels));
  v_proj = register_module("v_proj", linear(o.source_dim(), o.key_value_heads() * channels));
  if (o.qk_norm())
    qk_norm = register_module("qk_norm", QkNorm(QkNormOptions(channels)
                                                    .kind(*o.qk_norm())
                                                    .affine(o.qk_norm_affine())
                                                    .joint_heads(o.qk_norm_whole_width() ? o.heads() : 1)
                                                    .tokens(o.qk_norm_tokens())));
  out_proj = register_module("out_proj", linear(o.dim(), o.dim()));
  drop_output_ = register_module("drop_output", torch::nn::Dropout(o.dropout()));

  const double usual = qk_norm ? qk_norm->scale() : 1 / std::sqrt(static_cast<double>(channels));
  attention_ = {.causal = o.causal(),
                .scale = o.scale().value_or(usual),
                .window_left = o.window_left(),
                .window_right = o.window_right(),
                .softcap = o.softcap(),
                .alibi_slopes = o.alibi() ? alibi_slopes(o.heads()) : std::vector<double>{}};
}

torch::Tensor MultiHeadAttentionImpl::forward(const torch::Tensor& x, const torch::Tensor& source,
                                              const torch::Tensor& key_mask, const torch::Tensor& bias,
                                              const torch::Tensor& values) {
  const auto& from = source.defined() ? source : x;
  // b n (h c) -> b h n c, tokens before heads in memory
  const auto heads = [&](const torch::Tensor& t, int64_t n) { return t.unflatten(-1, {n, -1}).transpose(1, 2); };
  auto q = heads(q_proj(x), options_.heads()), k = heads(k_proj(from), options_.key_value_heads());
  const auto v = heads(v_proj(values.defined() ? values : from), options_.key_value_heads());
  const auto normalise = [&] {
    if (qk_norm) std::tie(q, k) = qk_norm(q, k);
  };
  if (options_.qk_norm_order() == QkNormOrder::kBeforePosition) normalise();
  if (options_.position()) std::tie(q, k) = options_.position()(q, k);
  if (options_.qk_norm_order() == QkNormOrder::kAfterPosition) normalise();

  const auto given = [](const torch::Tensor& t) { return t.defined() ? std::optional(t) : std::nullopt; };
  if (capture_) captured_ = {q.detach(), k.detach(), given(bias), given(key_mask)};
  ops::AttentionOptions attention = attention_;
  if (is_training() && options_.attention_dropout() > 0) {
    attention.dropout = options_.attention_dropout();
    attention.dropout_seed = torch::randint(std::numeric_limits<int64_t>::max(), {1}, torch::kInt64).item<int64_t>();
  }
  const auto out = std::get<0>(ops::attention(q, k, v, given(bias), given(key_mask), attention));
  return traced(this, drop_output_(out_proj(out.transpose(1, 2).flatten(2))));
}

void MultiHeadAttentionImpl::set_capture(bool on) {
  capture_ = on;
  if (!on) captured_.reset();
}

const MultiHeadAttentionImpl::Captured& MultiHeadAttentionImpl::captured(const char* asked) const {
  TORCH_CHECK(captured_, "multi_head_attention: ", asked,
              " without a captured forward; call set_capture(true) before it");
  return *captured_;
}

torch::Tensor MultiHeadAttentionImpl::rows(const torch::Tensor& queries) const {
  const Captured& c = captured("rows()");
  return ops::attention_rows(c.q, c.k, queries, c.bias, c.key_mask, attention_);
}

std::pair<torch::Tensor, torch::Tensor> MultiHeadAttentionImpl::queries_and_keys() const {
  const Captured& c = captured("queries_and_keys()");
  return {c.q, c.k};
}

std::vector<double> alibi_slopes(int64_t heads) {
  const auto of_power = [](int64_t n) {
    std::vector<double> slopes;
    for (int64_t h = 1; h <= n; ++h) slopes.push_back(std::exp2(-8.0 * h / n));
    return slopes;
  };
  int64_t power = 1;
  while (2 * power <= heads) power *= 2;
  std::vector<double> slopes = of_power(power);
  const std::vector<double> finer = of_power(2 * power);
  for (size_t i = 0; slopes.size() < static_cast<size_t>(heads); i += 2) slopes.push_back(finer[i]);
  return slopes;
}

}  // namespace fovea::nn
