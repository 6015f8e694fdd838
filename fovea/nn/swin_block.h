#pragma once
#include <torch/torch.h>

#include "fovea/nn/drop_path.h"
#include "fovea/nn/mlp.h"
#include "fovea/nn/window_attention.h"

namespace fovea::nn {

struct SwinBlockOptions {
  explicit SwinBlockOptions(const WindowAttentionOptions& attention) : attention_(attention) {}
  TORCH_ARG(WindowAttentionOptions, attention);
  TORCH_ARG(double, mlp_ratio) = 4;
  TORCH_ARG(double, dropout) = 0;
  TORCH_ARG(double, drop_path) = 0;
};

/// Pre-norm Swin transformer block.
///   x = x + drop_path(attn(norm1(x)));  out = x + drop_path(mlp(norm2(x)))
/// Shapes   x, out [B,Z,Y,X,E]
/// Source   Liu et al. 2021 (Swin), arXiv:2103.14030, eq. 3
class SwinTransformerBlockImpl : public torch::nn::Module {
 public:
  explicit SwinTransformerBlockImpl(const SwinBlockOptions& options);
  torch::Tensor forward(torch::Tensor x);

  torch::nn::LayerNorm norm1{nullptr}, norm2{nullptr};
  WindowAttention attn{nullptr};
  Mlp mlp{nullptr};
  DropPath drop_path{nullptr};
};
TORCH_MODULE(SwinTransformerBlock);

}  // namespace fovea::nn
