#include "fovea/nn/attention_scores.h"

namespace fovea::nn {

AttentionScoresImpl::AttentionScoresImpl(const AttentionScoresOptions& o)
    : value(o.dim(), o.hidden()), score(o.hidden(), o.heads()), drop_(o.dropout()) {
  using torch::nn::Sequential;
  if (o.gated()) {
    gate = torch::nn::Linear(o.dim(), o.hidden());
    register_module("attention_a", Sequential(value, torch::nn::Tanh(), drop_));
    register_module("attention_b", Sequential(gate, torch::nn::Sigmoid(), drop_));
    register_module("attention_c", score);
  } else {
    Sequential layers(value, torch::nn::Tanh());
    if (o.dropout() > 0) layers->push_back(drop_);
    layers->push_back(score);
    register_module("module", layers);
  }
}

torch::Tensor AttentionScoresImpl::forward(const torch::Tensor& x) {
  auto hidden = drop_(torch::tanh(value(x)));
  if (gate) hidden = hidden * drop_(torch::sigmoid(gate(x)));
  return score(hidden);
}

}  // namespace fovea::nn
