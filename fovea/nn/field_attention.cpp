#include "fovea/nn/field_attention.h"

#include "fovea/core/error.h"
#include "fovea/ops/attention.h"

namespace fovea::nn {

FieldAttentionImpl::FieldAttentionImpl(const FieldAttentionOptions& options) : options_(options) {
  const int64_t dim = options.dim(), heads = options.heads();
  if (heads < 1 || dim % heads != 0) throw ArgumentError(c10::str("field_attention: width ", dim, " is no multiple of ", heads, " heads"));
  const int64_t channels = dim / heads;
  if (channels < 2 * options.axes())
    throw ArgumentError(c10::str("field_attention: ", channels, " channels a head, expected two for each of ", options.axes(), " axes"));
  const auto map = [&] { return torch::nn::Linear(torch::nn::LinearOptions(dim, dim).bias(false)); };
  to_q = register_module("to_q", map()), to_k = register_module("to_k", map()), to_v = register_module("to_v", map());
  to_out = register_module("to_out", torch::nn::Linear(dim, dim));
  rotary_ = Rotary(RotaryOptions(channels).axes(options.axes()).scale(64).whole_turns(options.periodic()));
  if (options.kind() == FieldAttentionKind::kSoftmax) return;
  weight1_ = register_parameter("norm1_weight", torch::ones({heads, channels})), bias1_ = register_parameter("norm1_bias", torch::zeros({heads, channels}));
  weight2_ = register_parameter("norm2_weight", torch::ones({heads, channels})), bias2_ = register_parameter("norm2_bias", torch::zeros({heads, channels}));
}

FieldAttentionImpl::Projected FieldAttentionImpl::project(const torch::Tensor& x, const torch::Tensor& coordinates) {
  if (x.dim() != 3 || x.size(2) != options_.dim()) throw ArgumentError(c10::str("field_attention: x is ", x.sizes(), ", expected [B,N,", options_.dim(), "]"));
  if (coordinates.dim() != 2 || coordinates.size(0) != x.size(1) || coordinates.size(1) != options_.axes())
    throw ArgumentError(c10::str("field_attention: coordinates are ", coordinates.sizes(), ", expected [", x.size(1), ",", options_.axes(), "]"));
  const auto heads = [&](const torch::Tensor& t) { return t.unflatten(2, {options_.heads(), -1}).transpose(1, 2); };
  const auto norm = [](const torch::Tensor& t, const torch::Tensor& weight, const torch::Tensor& bias) {
    return torch::layer_norm(t, {t.size(3)}) * weight.unsqueeze(1) + bias.unsqueeze(1);
  };
  Projected p{heads(to_q(x)), heads(to_k(x)), heads(to_v(x))};
  if (options_.kind() == FieldAttentionKind::kFourier) p.q = norm(p.q, weight1_, bias1_), p.k = norm(p.k, weight2_, bias2_);
  if (options_.kind() == FieldAttentionKind::kGalerkin) p.k = norm(p.k, weight1_, bias1_), p.v = norm(p.v, weight2_, bias2_);
  p.q = rotary_->forward(p.q, coordinates), p.k = rotary_->forward(p.k, coordinates);
  return p;
}

torch::Tensor FieldAttentionImpl::forward(const torch::Tensor& x, const torch::Tensor& coordinates) {
  const auto [q, k, v] = project(x, coordinates);
  // k^T v first: the two sums over points commute, and this order never makes an N x N matrix.
  const auto read = options_.kind() == FieldAttentionKind::kSoftmax
                        ? std::get<0>(ops::attention(q.contiguous(), k.contiguous(), v.contiguous()))
                        : torch::matmul(q, torch::matmul(k.transpose(2, 3), v)) / double(x.size(1));
  return to_out(read.transpose(1, 2).flatten(2));
}

torch::Tensor FieldAttentionImpl::maps(const torch::Tensor& x, const torch::Tensor& coordinates) {
  torch::NoGradGuard no_grad;
  const auto [q, k, v] = project(x, coordinates);
  const int64_t n = x.size(1);
  if (options_.kind() == FieldAttentionKind::kSoftmax) return ops::attention_rows(q.contiguous(), k.contiguous(), torch::arange(n));
  return torch::matmul(q, k.transpose(2, 3)) / double(n);
}

}  // namespace fovea::nn
