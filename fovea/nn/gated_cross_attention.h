#pragma once
#include <torch/torch.h>

#include "fovea/nn/multi_head_attention.h"

namespace fovea::nn {

struct GatedCrossAttentionOptions {
  GatedCrossAttentionOptions(int64_t dim, int64_t heads) : dim_(dim), heads_(heads), media_dim_(dim), hidden_(4 * dim) {}
  TORCH_ARG(int64_t, dim);        ///< E, of the text's tokens
  TORCH_ARG(int64_t, heads);      ///< H
  TORCH_ARG(int64_t, media_dim);  ///< of the image's tokens
  TORCH_ARG(int64_t, hidden);     ///< of the perceptron
};

/// Lets a text look at an image through two gates that begin closed: at first the block returns its input, bit for bit.
///   x = x + tanh(attn_gate) attention(norm(x), media);  out = x + tanh(ff_gate) linear2(gelu(linear1(ff_norm(x))))
/// The gates are two numbers, the same for every case: nn::GatedFusion has one for each.
/// Shapes   x, out [B,T,E]; media [B,N,media_dim]; media_mask bool [B,N], true = takes part; a text whose image is masked
///          whole gets nothing from attention
/// Names    norm.*, attn.{q,k,v,out}_proj.weight, attn_gate [1], ff_norm.*, linear1.weight, linear2.weight, ff_gate [1]
/// Source   Alayrac et al. 2022 (Flamingo), arXiv:2204.14198, section 2.2 and figure 4; no biases, media are not
///          normalised, as in OpenFlamingo with dim_head = E / H
class GatedCrossAttentionImpl : public torch::nn::Module {
 public:
  explicit GatedCrossAttentionImpl(const GatedCrossAttentionOptions& options);
  torch::Tensor forward(torch::Tensor x, const torch::Tensor& media, const torch::Tensor& media_mask = {});

  torch::nn::LayerNorm norm{nullptr}, ff_norm{nullptr};
  MultiHeadAttention attn{nullptr};
  torch::nn::Linear linear1{nullptr}, linear2{nullptr};
  torch::Tensor attn_gate, ff_gate;  // alpha
};
TORCH_MODULE(GatedCrossAttention);

}  // namespace fovea::nn
