#include "fovea/models/operator_transformer.h"

#include "fovea/core/error.h"

namespace fovea::models {

namespace {
torch::nn::Sequential perceptron(int64_t in, int64_t hidden, int64_t out) {
  return torch::nn::Sequential(torch::nn::Linear(in, hidden), torch::nn::GELU(), torch::nn::Linear(hidden, out));
}
}  // namespace

OperatorTransformerImpl::OperatorTransformerImpl(const OperatorTransformerConfig& config) : config_(config) {
  lift_ = register_module("lift", torch::nn::Linear(config.inputs + (config.reads_position ? config.axes : 0), config.width));
  const auto layers = register_module("layers", torch::nn::ModuleList());
  for (int64_t i = 0; i < config.layers; ++i) {
    const auto layer = std::make_shared<torch::nn::Module>();
    attention_.push_back(layer->register_module(
        "attn", nn::FieldAttention(nn::FieldAttentionOptions(config.width, config.heads).axes(config.axes).kind(config.kind).periodic(config.periodic))));
    mlp_.push_back(layer->register_module("mlp", perceptron(config.width, config.hidden, config.width)));
    layers->push_back(layer);
  }
  read_ = register_module("read", perceptron(config.width, config.width, config.outputs));
}

torch::Tensor OperatorTransformerImpl::lifted(const torch::Tensor& f, const torch::Tensor& coordinates) {
  if (f.dim() != 3 || f.size(2) != config_.inputs) throw ArgumentError(c10::str("operator_transformer: f is ", f.sizes(), ", expected [B,N,", config_.inputs, "]"));
  if (!config_.reads_position) return lift_(f);
  return lift_(torch::cat({f, coordinates.to(f.scalar_type()).unsqueeze(0).expand({f.size(0), -1, -1})}, 2));
}

torch::Tensor OperatorTransformerImpl::forward(const torch::Tensor& f, const torch::Tensor& coordinates) {
  auto x = lifted(f, coordinates);
  for (size_t i = 0; i < attention_.size(); ++i) {
    x = x + attention_[i](x, coordinates);
    x = x + mlp_[i]->forward(x);
  }
  return read_->forward(x);
}

std::vector<torch::Tensor> OperatorTransformerImpl::maps(const torch::Tensor& f, const torch::Tensor& coordinates) {
  torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> all;
  auto x = lifted(f, coordinates);
  for (size_t i = 0; i < attention_.size(); ++i) {
    all.push_back(attention_[i]->maps(x, coordinates));
    x = x + attention_[i](x, coordinates);
    x = x + mlp_[i]->forward(x);
  }
  return all;
}

}  // namespace fovea::models
