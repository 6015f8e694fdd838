#pragma once
#include <torch/torch.h>

#include <vector>

#include "fovea/nn/field_attention.h"

namespace fovea::models {

struct OperatorTransformerConfig {
  int64_t inputs = 1, outputs = 1;  // values of a point
  int64_t axes = 1;                 // D of its coordinates
  int64_t width = 32, heads = 4, layers = 1, hidden = 64;
  nn::FieldAttentionKind kind = nn::FieldAttentionKind::kFourier;
  bool periodic = false;        // positions turn whole times on [0, 1]
  bool reads_position = true;   // coordinates beside the values; without, and with `periodic`, shifting f shifts u
};

/// A network from functions to functions, given at points: f(y_j) -> u(x_j).
///   x = lift([f, position]);  x += attention(x);  x += W2 gelu(W1 x)  per layer;  u = read(x), a perceptron
/// Shapes   f [B,N,inputs], coordinates [N,D] -> [B,N,outputs]; N may change from call to call
/// Names    lift.*, layers.I.attn.*, layers.I.mlp.{0,2}.*, read.{0,2}.*
/// Source   as nn::FieldAttention
class OperatorTransformerImpl : public torch::nn::Module {
 public:
  explicit OperatorTransformerImpl(const OperatorTransformerConfig& config);
  torch::Tensor forward(const torch::Tensor& f, const torch::Tensor& coordinates);
  /// Each layer's weights of values on these inputs: layers of [B,H,N,N].
  std::vector<torch::Tensor> maps(const torch::Tensor& f, const torch::Tensor& coordinates);

 private:
  torch::Tensor lifted(const torch::Tensor& f, const torch::Tensor& coordinates);

  OperatorTransformerConfig config_;
  torch::nn::Linear lift_{nullptr};
  std::vector<nn::FieldAttention> attention_;
  std::vector<torch::nn::Sequential> mlp_;
  torch::nn::Sequential read_{nullptr};
};
TORCH_MODULE(OperatorTransformer);

}  // namespace fovea::models
