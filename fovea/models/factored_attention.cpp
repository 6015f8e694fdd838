#include "fovea/models/factored_attention.h"

#include <cmath>
#include <limits>

#include "fovea/core/error.h"

namespace fovea::models {

FactoredAttentionImpl::FactoredAttentionImpl(const FactoredAttentionConfig& config) : config_(config) {
  if (config.columns < 2 || config.states < 2 || config.heads < 1 || config.channels < 1)
    throw ArgumentError(c10::str("factored_attention: ", config.columns, " columns, ", config.states, " states, ", config.heads, " heads of ", config.channels, " channels, expected at least 2, 2, 1 and 1"));
  const auto normal = [](at::IntArrayRef shape, double deviation) { return deviation * torch::randn(shape); };
  query = register_parameter("query", normal({config.heads, config.columns, config.channels}, 0.5));
  key = register_parameter("key", normal({config.heads, config.columns, config.channels}, 0.5));
  value = register_parameter("value", normal({config.heads, config.states, config.states}, 0.01));
  bias = register_parameter("bias", torch::zeros({config.columns, config.states}));
}

torch::Tensor FactoredAttentionImpl::couplings() {
  const int64_t l = config_.columns, n = l * config_.states;
  const auto itself = torch::eye(l, torch::kBool);
  const auto scores = torch::matmul(query, key.transpose(1, 2)) / std::sqrt(double(config_.channels));
  const auto maps = torch::softmax(scores.masked_fill(itself, -std::numeric_limits<float>::infinity()), 2);  // H L L
  const auto w = torch::matmul(maps.flatten(1).t(), value.flatten(1))                                          // (L L) (a b)
                     .view({l, l, config_.states, config_.states}).permute({0, 2, 1, 3}).reshape({n, n});
  return (w + w.t()) / 2;
}

torch::Tensor FactoredAttentionImpl::logits(const torch::Tensor& residues, const torch::Tensor& w) {
  if (residues.dim() != 2 || residues.size(1) != config_.columns || residues.scalar_type() != torch::kInt64)
    throw ArgumentError(c10::str("factored_attention: residues are ", residues.dtype(), " ", residues.sizes(), ", expected int64 [B,", config_.columns, "]"));
  const auto x = torch::one_hot(residues, config_.states).to(w.scalar_type()).flatten(1);
  return torch::matmul(x, w).view({-1, config_.columns, config_.states}) + bias;
}

torch::Tensor FactoredAttentionImpl::forward(const torch::Tensor& residues) { return logits(residues, couplings()); }

torch::Tensor FactoredAttentionImpl::strengths() {
  torch::NoGradGuard no_grad;
  const int64_t l = config_.columns, letters = std::min<int64_t>(config_.states, 20);
  // Of the zero-sum gauge: what a constant added to a pair's rows or columns would change is not interaction.
  auto w = couplings().view({l, config_.states, l, config_.states}).permute({0, 2, 1, 3}).slice(2, 0, letters).slice(3, 0, letters);
  w = w - w.mean(2, true) - w.mean(3, true) + w.mean({2, 3}, true);
  return w.square().sum({2, 3}).sqrt();
}

torch::Tensor FactoredAttentionImpl::loss(const torch::Tensor& residues, double l2, const torch::Tensor& weights) {
  const auto w = couplings();
  const auto all = torch::log_softmax(logits(residues, w), 2).gather(2, residues.unsqueeze(2)).squeeze(2).sum(1);  // B
  const auto likelihood = weights.defined() ? (all * weights).sum() / weights.sum() : all.mean();
  return l2 / 2 * w.square().sum() - likelihood;
}

}  // namespace fovea::models
