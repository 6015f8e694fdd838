#include "fovea/nn/swin_block.h"

#include "fovea/nn/trace.h"

namespace fovea::nn {

SwinTransformerBlockImpl::SwinTransformerBlockImpl(const SwinBlockOptions& options) {
  auto attention = options.attention();
  const int64_t dim = attention.dim();
  norm1 = register_module("norm1", torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim})));
  attn = register_module("attn", WindowAttention(attention.dropout(options.dropout())));
  drop_path = register_module("drop_path", DropPath(options.drop_path()));
  norm2 = register_module("norm2", torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim})));
  mlp = register_module("mlp", Mlp(MlpOptions(dim, static_cast<int64_t>(dim * options.mlp_ratio())).dropout(options.dropout())));
}

torch::Tensor SwinTransformerBlockImpl::forward(torch::Tensor x) {
  if (drop_path->idle()) {
    x = attn->add_to(x, norm1);
    return traced(this, mlp->add_to(x, norm2));
  }
  x = x + drop_path(attn(norm1(x)));
  return traced(this, x + drop_path(mlp(norm2(x))));
}

}  // namespace fovea::nn
