#include "fovea/nn/co_attention.h"

#include <limits>

#include "fovea/core/error.h"
#include "fovea/nn/trace.h"
#include "fovea/ops/attention_pool.h"

namespace fovea::nn {

namespace {
void check_side(const char* name, const torch::Tensor& tokens, const torch::Tensor& mask, int64_t dim) {
  if (tokens.dim() != 3 || tokens.size(2) != dim)
    throw ArgumentError(c10::str("co_attention: ", name, " is ", tokens.sizes(), ", expected [B,tokens,", dim, "]"));
  if (mask.defined() && (mask.scalar_type() != torch::kBool || mask.sizes() != tokens.sizes().slice(0, 2)))
    throw ArgumentError(c10::str("co_attention: ", name, "_mask is ", mask.dtype(), " ", mask.sizes(),
                                 ", expected bool ", tokens.sizes().slice(0, 2)));
}

// Softmax of scores [B,N] over the tokens that take part, and the mean of tokens [B,N,E] by it.
std::pair<torch::Tensor, torch::Tensor> pool(torch::Tensor scores, const torch::Tensor& tokens, const torch::Tensor& mask) {
  const int64_t batch = tokens.size(0), count = tokens.size(1);
  if (mask.defined()) scores = scores.masked_fill(~mask, -std::numeric_limits<double>::infinity());
  const auto offsets = torch::arange(batch + 1, torch::kInt64) * count;
  const auto [mean, lse] = ops::attention_pool(scores.reshape({-1, 1}), tokens.flatten(0, 1), offsets.to(tokens.device()));
  // The weights are what the op used; they carry no gradient. No token: lse is -inf, the weights are 0.
  const auto weights = (scores - lse.masked_fill(lse.isinf(), 0)).exp().detach();
  return {mean.squeeze(1), weights};
}
}  // namespace

ParallelCoAttentionImpl::ParallelCoAttentionImpl(int64_t dim, int64_t hidden) {
  const auto map = [](int64_t in, int64_t out) {
    return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(false));
  };
  affinity = register_module("affinity", map(dim, dim));
  image_map = register_module("image", map(dim, hidden));
  table_map = register_module("table", map(dim, hidden));
  image_score = register_module("image_score", map(hidden, 1));
  table_score = register_module("table_score", map(hidden, 1));
}

CoAttended ParallelCoAttentionImpl::forward(const torch::Tensor& image, const torch::Tensor& table,
                                            const torch::Tensor& image_mask, const torch::Tensor& table_mask) {
  const int64_t dim = affinity->weight.size(0);
  check_side("image", image, image_mask, dim), check_side("table", table, table_mask, dim);
  auto pairs = torch::matmul(table, affinity(image).transpose(1, 2)).tanh();  // B T N
  if (image_mask.defined()) pairs = pairs.masked_fill(~image_mask.unsqueeze(1), 0);
  if (table_mask.defined()) pairs = pairs.masked_fill(~table_mask.unsqueeze(2), 0);
  const auto v = image_map(image), t = table_map(table);
  const auto from_image = torch::tanh(v + torch::matmul(pairs.transpose(1, 2), t));
  const auto from_table = torch::tanh(t + torch::matmul(pairs, v));
  CoAttended read;
  std::tie(read.image, read.image_weights) = pool(image_score(from_image).squeeze(2), image, image_mask);
  std::tie(read.table, read.table_weights) = pool(table_score(from_table).squeeze(2), table, table_mask);
  return read;
}

AskingBlockImpl::AskingBlockImpl(int64_t dim, int64_t other_dim, int64_t heads, int64_t hidden, double dropout) {
  attn = register_module("attn", MultiHeadAttention(MultiHeadAttentionOptions(dim, heads).source_dim(other_dim).dropout(dropout)));
  norm1 = register_module("norm1", torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim})));
  mlp = register_module("mlp", Mlp(MlpOptions(dim, hidden).dropout(dropout)));
  norm2 = register_module("norm2", torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim})));
}

torch::Tensor AskingBlockImpl::forward(const torch::Tensor& x, const torch::Tensor& other, const torch::Tensor& other_mask,
                                       const torch::Tensor& values, const torch::Tensor& asking) {
  const auto y = norm1(x + attn(asking.defined() ? asking : x, other, other_mask, torch::Tensor(), values));
  return traced(this, norm2(y + mlp(y)));
}

CoAttentionImpl::CoAttentionImpl(const CoAttentionOptions& o) {
  first = register_module("first", AskingBlock(o.dim(), o.other_dim(), o.heads(), o.hidden(), o.dropout()));
  second = register_module("second", AskingBlock(o.other_dim(), o.dim(), o.heads(), o.hidden() * o.other_dim() / o.dim(), o.dropout()));
}

std::pair<torch::Tensor, torch::Tensor> CoAttentionImpl::forward(const torch::Tensor& a, const torch::Tensor& b,
                                                                 const torch::Tensor& a_mask, const torch::Tensor& b_mask,
                                                                 const torch::Tensor& a_position,
                                                                 const torch::Tensor& b_asking) {
  check_side("first", a, a_mask, first->attn->q_proj->weight.size(1));
  check_side("second", b, b_mask, second->attn->q_proj->weight.size(1));
  const auto placed = a_position.defined() ? a + a_position : a;
  const auto asking = b_asking.defined() ? b_asking.expand_as(b) : b;
  return {first(placed, b, b_mask), second(b, a, a_mask, placed, asking)};
}

}  // namespace fovea::nn
