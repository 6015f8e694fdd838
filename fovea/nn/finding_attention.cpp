#include "fovea/nn/finding_attention.h"

#include <cmath>
#include <limits>

#include "fovea/core/error.h"

namespace fovea::nn {

FindingAttentionImpl::FindingAttentionImpl(const FindingAttentionOptions& o) : options_(o) {
  if (o.dim() < 1 || o.source_dim() < 1)
    throw ArgumentError(c10::str("finding_attention: dim is ", o.dim(), ", source_dim ", o.source_dim(), ", expected 1 or more each"));
  q_proj = register_module("q_proj", torch::nn::Linear(o.dim(), o.dim()));
  k_proj = register_module("k_proj", torch::nn::Linear(o.source_dim(), o.dim()));
  v_proj = register_module("v_proj", torch::nn::Linear(o.source_dim(), o.dim()));
  out_proj = register_module("out_proj", torch::nn::Linear(o.dim(), o.dim()));
  nothing = register_module("nothing", torch::nn::Linear(o.dim(), 1));
}

Finding FindingAttentionImpl::forward(const torch::Tensor& x, const torch::Tensor& source, const torch::Tensor& mask) {
  if (x.dim() != 3 || source.dim() != 3 || x.size(2) != options_.dim() || source.size(2) != options_.source_dim() || x.size(0) != source.size(0))
    throw ArgumentError(c10::str("finding_attention: questions are ", x.sizes(), ", regions ", source.sizes(), ", expected [B,Q,", options_.dim(),
                                 "] and [B,N,", options_.source_dim(), "]"));
  if (mask.defined() && (mask.scalar_type() != torch::kBool || mask.sizes() != source.sizes().slice(0, 2)))
    throw ArgumentError(c10::str("finding_attention: mask is ", mask.scalar_type(), " ", mask.sizes(), ", expected bool ", source.sizes().slice(0, 2)));
  auto scores = torch::matmul(q_proj(x), k_proj(source).transpose(1, 2)) / std::sqrt(double(options_.dim()));  // B Q N
  auto regions = torch::full({source.size(0), 1}, double(source.size(1)), scores.options());
  auto values = v_proj(source);
  torch::Tensor weights, strength;
  if (mask.defined()) {
    const auto none = mask.any(1).logical_not().view({-1, 1, 1});
    // A case without regions keeps finite scores on the way, so that no gradient is NaN, and loses them at the end.
    scores = scores.masked_fill(mask.unsqueeze(1).logical_not().logical_and(none.logical_not()), -std::numeric_limits<double>::infinity());
    weights = scores.softmax(2).masked_fill(none, 0);
    strength = scores.logsumexp(2).masked_fill(none.squeeze(2), -std::numeric_limits<double>::infinity());
    regions = mask.sum(1, /*keepdim=*/true).clamp_min(1).to(scores.scalar_type());
    values = torch::where(mask.unsqueeze(2), values, torch::zeros({}, values.options()));
  } else {
    weights = scores.softmax(2);
    strength = scores.logsumexp(2);
  }
  return {out_proj(torch::matmul(weights, values)), weights, strength - regions.log() - nothing(x).squeeze(2)};
}

}  // namespace fovea::nn
