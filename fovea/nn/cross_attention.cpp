#include "fovea/nn/cross_attention.h"

#include <algorithm>
#include <cmath>

#include "fovea/core/error.h"
#include "fovea/nn/trace.h"
#include "fovea/ops/attention.h"

namespace fovea::nn {

namespace {
void check_tokens(const char* name, const torch::Tensor& tokens, const torch::Tensor& mm, int64_t dim) {
  if (tokens.dim() != 3 || tokens.size(2) != dim)
    throw ArgumentError(c10::str("cross_attention: ", name, " is ", tokens.sizes(), ", expected [B,tokens,", dim, "]"));
  if (mm.dim() != 2 || mm.size(0) != tokens.size(1) || mm.size(1) != 3)
    throw ArgumentError(c10::str("cross_attention: ", name, "_mm is ", mm.sizes(), ", expected [", tokens.size(1), ",3]"));
  if (!torch::isfinite(mm).all().item<bool>())
    throw ArgumentError(c10::str("cross_attention: ", name, "_mm has a position that is not finite"));
}

void check_all(const CrossAttentionOptions& o, const torch::Tensor& x, const torch::Tensor& x_mm, const torch::Tensor& source,
               const torch::Tensor& source_mm, const torch::Tensor& mask) {
  check_tokens("x", x, x_mm, o.dim());
  check_tokens("source", source, source_mm, o.source_dim());
  if (source.size(0) != x.size(0))
    throw ArgumentError(c10::str("cross_attention: source has ", source.size(0), " samples, expected ", x.size(0), " as x"));
  if (mask.defined() && (mask.scalar_type() != torch::kBool || mask.sizes() != source.sizes().slice(0, 2)))
    throw ArgumentError(c10::str("cross_attention: source_mask is ", mask.dtype(), " ", mask.sizes(), ", expected bool ",
                                 source.sizes().slice(0, 2)));
}

// The missing token before the source [B,1+M,source_dim], and who takes part, [B,1+M].
std::pair<torch::Tensor, torch::Tensor> with_missing(const torch::Tensor& missing, const torch::Tensor& source,
                                                     const torch::Tensor& source_mask) {
  const int64_t batch = source.size(0);
  auto mask = torch::ones({batch, 1 + source.size(1)}, torch::TensorOptions(torch::kBool).device(source.device()));
  if (source_mask.defined()) mask.slice(1, 1).copy_(source_mask);
  return {torch::cat({missing.view({1, 1, -1}).expand({batch, 1, -1}), source}, 1), mask};
}

// [B,N,E] -> [B,H,N,C]
torch::Tensor by_head(const torch::Tensor& t, int64_t heads) { return t.unflatten(-1, {heads, -1}).transpose(1, 2); }

double scale_of(const torch::Tensor& q) { return 1 / std::sqrt(static_cast<double>(q.size(-1))); }
}  // namespace

CrossAttentionImpl::CrossAttentionImpl(const CrossAttentionOptions& o) : options_(o) {
  if (o.heads() < 1 || o.dim() < 1 || o.dim() % o.heads() != 0)
    throw ArgumentError(c10::str("cross_attention: dim is ", o.dim(), ", expected a multiple of the ", o.heads(), " heads"));
  if (!(o.radius_mm() > 0) || !(o.unit_mm() > 0) || o.queries_at_once() < 1)
    throw ArgumentError(c10::str("cross_attention: radius_mm is ", o.radius_mm(), ", unit_mm ", o.unit_mm(),
                                 ", queries_at_once ", o.queries_at_once(), ", expected positive values"));
  using torch::nn::Linear;
  q_proj = register_module("q_proj", Linear(o.dim(), o.dim()));
  k_proj = register_module("k_proj", Linear(o.source_dim(), o.dim()));
  v_proj = register_module("v_proj", Linear(o.source_dim(), o.dim()));
  out_proj = register_module("out_proj", Linear(o.dim(), o.dim()));
  missing = register_parameter("missing", torch::randn({o.source_dim()}) / std::sqrt(double(o.source_dim())));
  auto perceptron = register_module("bias", std::make_shared<torch::nn::Module>());
  bias_first = perceptron->register_module("0", Linear(3, o.bias_hidden()));
  bias_last = perceptron->register_module("2", Linear(torch::nn::LinearOptions(o.bias_hidden(), o.heads()).bias(false)));
}

torch::Tensor CrossAttentionImpl::bias(const torch::Tensor& x_mm, const torch::Tensor& source_mm) const {
  const auto displacement = source_mm.unsqueeze(0) - x_mm.unsqueeze(1);  // [n,m,3]
  const auto coordinate = torch::sign(displacement) * torch::log2(1 + displacement.abs() / options_.unit_mm());
  auto first = bias_first, last = bias_last;
  auto b = last(torch::relu(first(coordinate.to(bias_first->weight.scalar_type())))).permute({2, 0, 1});  // H n m
  if (std::isfinite(options_.radius_mm()))
    b = b.masked_fill(displacement.norm(2, -1) > options_.radius_mm(), -std::numeric_limits<double>::infinity());
  return torch::cat({torch::zeros({b.size(0), b.size(1), 1}, b.options()), b}, 2).unsqueeze(0);
}

CrossAttended CrossAttentionImpl::forward(const torch::Tensor& x, const torch::Tensor& x_mm, const torch::Tensor& source,
                                          const torch::Tensor& source_mm, const torch::Tensor& source_mask) {
  check_all(options_, x, x_mm, source, source_mm, source_mask);
  const int64_t queries = x.size(1);
  const auto [asked, mask] = with_missing(missing, source, source_mask);
  const int64_t h = options_.heads();
  const auto q = by_head(q_proj(x), h), k = by_head(k_proj(asked), h), v = by_head(v_proj(asked), h);
  const auto here = x_mm.to(x.device(), torch::kFloat64), there = source_mm.to(x.device(), torch::kFloat64);
  if (capture_) captured_ = Captured{q.detach(), k.detach(), here, there, mask};

  std::vector<torch::Tensor> read, to_missing;
  for (int64_t first = 0; first < queries; first += options_.queries_at_once()) {
    const int64_t last = std::min(queries, first + options_.queries_at_once());
    const auto mm = here.slice(0, first, last), some = q.slice(2, first, last);
    auto near_k = k, near_v = v, near_mm = there, near_mask = mask;
    if (std::isfinite(options_.radius_mm()) && last - first < queries) {
      // Only what is near the box around these queries.
      const auto beyond = torch::maximum(mm.amin(0) - there, there - mm.amax(0)).clamp_min(0).norm(2, -1);
      const auto near = (beyond <= options_.radius_mm()).nonzero().squeeze(1);
      const auto keys = torch::cat({torch::zeros({1}, near.options()), near + 1});  // the missing token is always near
      near_mm = there.index_select(0, near), near_mask = mask.index_select(1, keys);
      near_k = k.index_select(2, keys), near_v = v.index_select(2, keys);
    }
    const auto [out, lse] = ops::attention(some, near_k, near_v, bias(mm, near_mm), near_mask);
    read.push_back(out);
    const auto score = scale_of(q) * torch::matmul(some.detach(), k.detach().slice(2, 0, 1).transpose(-1, -2)).squeeze(-1);
    to_missing.push_back((score - lse).exp().mean(1));  // [B,n]
  }
  const auto out = torch::cat(read, 2).transpose(1, 2).flatten(2);
  const auto gate = (1 - torch::cat(to_missing, 1).detach()).clamp(0, 1);
  return {traced(this, x + out_proj(out)), gate};
}

torch::Tensor CrossAttentionImpl::weights(const torch::Tensor& x, const torch::Tensor& x_mm, const torch::Tensor& source,
                                          const torch::Tensor& source_mm, const torch::Tensor& source_mask) const {
  check_all(options_, x, x_mm, source, source_mm, source_mask);
  auto to_q = q_proj, to_k = k_proj;
  const auto [asked, mask] = with_missing(missing, source, source_mask);
  const auto q = by_head(to_q(x), options_.heads()), k = by_head(to_k(asked), options_.heads());
  const auto here = x_mm.to(x.device(), torch::kFloat64), there = source_mm.to(x.device(), torch::kFloat64);
  const auto scores = scale_of(q) * torch::matmul(q, k.transpose(-1, -2)) + bias(here, there);
  return scores.masked_fill(~mask.unsqueeze(1).unsqueeze(1), -std::numeric_limits<double>::infinity()).softmax(-1);
}

void CrossAttentionImpl::set_capture(bool on) {
  capture_ = on;
  if (!on) captured_.reset();
}

torch::Tensor CrossAttentionImpl::rows(const torch::Tensor& queries) const {
  TORCH_CHECK(captured_, "cross_attention: rows() without a captured forward; call set_capture(true) before it");
  torch::NoGradGuard no_grad;
  const auto& c = *captured_;
  const auto q = c.q.index_select(2, queries.to(c.q.device()));
  return ops::attention_rows(q, c.k, torch::arange(queries.size(0)), bias(c.x_mm.index_select(0, queries.to(c.q.device())), c.source_mm), c.mask);
}

torch::Tensor attended_mm(const torch::Tensor& rows, const torch::Tensor& source_mm) {
  const auto weights = rows.slice(-1, 1).to(torch::kFloat64);
  return torch::matmul(weights, source_mm.to(weights.device(), torch::kFloat64)) / weights.sum(-1, /*keepdim=*/true);
}

}  // namespace fovea::nn
