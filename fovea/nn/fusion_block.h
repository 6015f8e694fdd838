#pragma once
#include <torch/torch.h>

#include "fovea/nn/mlp.h"
#include "fovea/nn/multi_head_attention.h"

namespace fovea::nn {

/// Pre-norm transformer block over tokens of several sources, any of which may be missing.
///   x = x + attn(norm1(x));  out = x + mlp(norm2(x))
/// Shapes   x, out [B,N,E]; key_mask bool [B,N], false: nobody attends to that token; bias broadcastable to [B,H,N,N]
/// Names    norm1.*, attn.{q,k,v,out}_proj.*, norm2.*, mlp.*
/// Source   Vaswani et al. 2017; pre-norm as in Dosovitskiy et al. 2021
class FusionBlockImpl : public torch::nn::Module {
 public:
  FusionBlockImpl(const MultiHeadAttentionOptions& attention, int64_t mlp_dim);
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& key_mask = {}, const torch::Tensor& bias = {});

  torch::nn::LayerNorm norm1{nullptr}, norm2{nullptr};
  MultiHeadAttention attn{nullptr};
  Mlp mlp{nullptr};
};
TORCH_MODULE(FusionBlock);

}  // namespace fovea::nn
