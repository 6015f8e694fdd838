#include "fovea/nn/nystrom_attention.h"

#include <cmath>

#include "fovea/core/error.h"
#include "fovea/ops/attention.h"

namespace fovea::nn {

torch::Tensor iterated_pseudo_inverse(const torch::Tensor& a, int64_t iterations) {
  const auto size = a.abs();
  const auto rows = size.sum(-1).amax({-2, -1}), columns = size.sum(-2).amax({-2, -1});  // [B]
  auto z = a.transpose(-1, -2) / (rows * columns).view({-1, 1, 1, 1});
  const auto one = torch::eye(a.size(-1), a.options());
  for (int64_t i = 0; i < iterations; ++i) {
    const auto az = torch::matmul(a, z);
    z = 0.25 * torch::matmul(z, 13 * one - torch::matmul(az, 15 * one - torch::matmul(az, 7 * one - az)));
  }
  return z;
}

NystromAttentionImpl::NystromAttentionImpl(const NystromAttentionOptions& o) : options_(o) {
  if (o.heads() <= 0 || o.dim() % o.heads() != 0 || o.landmarks() <= 0 || o.iterations() < 0 || o.kernel() % 2 == 0)
    throw ArgumentError(c10::str("nystrom attention: dim ", o.dim(), ", heads ", o.heads(), ", landmarks ", o.landmarks(), ", kernel ",
                                 o.kernel(), ", expected heads that divide dim, at least 1 landmark, an odd kernel"));
  to_qkv_ = register_module("to_qkv", torch::nn::Linear(torch::nn::LinearOptions(o.dim(), 3 * o.dim()).bias(false)));
  to_out_ = register_module("to_out", torch::nn::Sequential(torch::nn::Linear(o.dim(), o.dim()), torch::nn::Dropout(o.dropout())));
  res_conv_ = register_module("res_conv", torch::nn::Conv2d(torch::nn::Conv2dOptions(o.heads(), o.heads(), {o.kernel(), 1})
                                                                .padding({o.kernel() / 2, 0})
                                                                .groups(o.heads())
                                                                .bias(false)));
}

torch::Tensor NystromAttentionImpl::forward(const torch::Tensor& x) {
  if (x.dim() != 3 || x.size(1) == 0 || x.size(2) != options_.dim())
    throw ArgumentError(c10::str("nystrom attention: x is ", x.sizes(), ", expected [B,N,", options_.dim(), "], N at least 1"));
  const int64_t m = options_.landmarks(), padding = (m - x.size(1) % m) % m;
  // to_qkv has no bias: tokens of zeros before the first one have queries, keys and values of zeros.
  const auto qkv = torch::constant_pad_nd(to_qkv_(x), {0, 0, padding, 0}).unflatten(2, {3, options_.heads(), -1});
  const auto part = [&](int64_t i) { return qkv.select(2, i).transpose(1, 2); };  // b n h c -> b h n c
  const auto q = part(0), k = part(1), v = part(2);
  const auto landmarks = [&](const torch::Tensor& t) { return t.unflatten(2, {m, -1}).mean(3); };
  const auto few_q = landmarks(q), few_k = landmarks(k);
  const double scale = 1 / std::sqrt(double(q.size(3)));
  const auto inverse = iterated_pseudo_inverse((torch::matmul(few_q, few_k.transpose(-1, -2)) * scale).softmax(-1), options_.iterations());
  const auto read = torch::matmul(inverse, std::get<0>(ops::attention(few_q, k, v)));
  auto out = std::get<0>(ops::attention(q.slice(2, padding), few_k, read)) + res_conv_(v).slice(2, padding);
  if (capture_) captured_ = {q.slice(2, padding).detach(), k.detach(), few_q.detach(), few_k.detach(), inverse.detach(), padding};
  return to_out_->forward(out.transpose(1, 2).flatten(2));
}

void NystromAttentionImpl::set_capture(bool on) {
  capture_ = on;
  if (!on) captured_ = {};
}

torch::Tensor NystromAttentionImpl::row(int64_t query) const {
  TORCH_CHECK(captured_.queries.defined(), "nystrom attention: no forward was captured");
  const torch::NoGradGuard no_grad;
  const int64_t heads = options_.heads(), m = options_.landmarks();
  const auto thin = ops::attention_rows(captured_.queries, captured_.key_landmarks, torch::tensor({query}));  // b h 1 m
  const auto share = torch::matmul(thin, captured_.inverse);
  std::vector<torch::Tensor> rows;
  for (int64_t h = 0; h < heads; ++h) {  // a head at a time: m x N numbers
    const auto head = [&](const torch::Tensor& t) { return t.narrow(1, h, 1); };
    rows.push_back(torch::matmul(head(share), ops::attention_rows(head(captured_.query_landmarks), head(captured_.keys), torch::arange(m))));
  }
  return torch::cat(rows, 1).squeeze(2).slice(2, captured_.padding);
}

}  // namespace fovea::nn
