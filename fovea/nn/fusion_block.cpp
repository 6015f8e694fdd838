#include "fovea/nn/fusion_block.h"

#include "fovea/nn/trace.h"

namespace fovea::nn {

FusionBlockImpl::FusionBlockImpl(const MultiHeadAttentionOptions& attention, int64_t mlp_dim) {
  const auto norm = [&] { return torch::nn::LayerNorm(torch::nn::LayerNormOptions({attention.dim()})); };
  norm1 = register_module("norm1", norm());
  attn = register_module("attn", MultiHeadAttention(attention));
  norm2 = register_module("norm2", norm());
  mlp = register_module("mlp", Mlp(MlpOptions(attention.dim(), mlp_dim).dropout(attention.dropout())));
}

torch::Tensor FusionBlockImpl::forward(const torch::Tensor& x, const torch::Tensor& key_mask, const torch::Tensor& bias) {
  return traced(this, mlp->add_to(x + attn(norm1(x), torch::Tensor(), key_mask, bias), norm2));
}

}  // namespace fovea::nn
