#pragma once
#include <string>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include "fovea/nn/patch_embedding_block.h"
#include "fovea/nn/transformer_block.h"

namespace fovea::models {

struct VitConfig {
  int64_t in_channels = 1;
  std::vector<int64_t> img_size = {96, 96, 96};
  std::vector<int64_t> patch_size = {16, 16, 16};
  int64_t hidden_size = 768;
  int64_t mlp_dim = 3072;
  int64_t num_layers = 12;
  int64_t num_heads = 12;
  std::string proj_type = "conv";
  std::string pos_embed_type = "learnable";
  bool classification = false;
  int64_t num_classes = 2;
  double dropout_rate = 0;
  std::string post_activation = "Tanh";
  bool qkv_bias = false;

  template <class V>
  void visit(V& v) {
    v("in_channels", in_channels, "channels of the image");
    v("img_size", img_size, "voxels, Z, Y, X");
    v("patch_size", patch_size, "voxels of a token, Z, Y, X");
    v("hidden_size", hidden_size, "width of a token");
    v("mlp_dim", mlp_dim, "hidden width of the perceptron");
    v("num_layers", num_layers, "transformer blocks");
    v("num_heads", num_heads, "attention heads; divides hidden_size");
    v("proj_type", proj_type, "conv or perceptron: how patches are projected");
    v("pos_embed_type", pos_embed_type, "learnable, sincos or none");
    v("classification", classification, "put a class token before the patches and a head on it");
    v("num_classes", num_classes, "outputs of that head");
    v("dropout_rate", dropout_rate, "dropout of tokens, projections and perceptrons; attention weights are never dropped");
    v("post_activation", post_activation, "Tanh or none, after the head");
    v("qkv_bias", qkv_bias, "bias on query, key and value");
  }

  /// Throws ArgumentError naming the field, its value and what it should be.
  void validate() const;
};

/// Vision transformer. Parameter names as in MONAI's ViT.
/// Source   Dosovitskiy et al. 2021, arXiv:2010.11929
class VitImpl : public torch::nn::Module {
 public:
  explicit VitImpl(const VitConfig& config);
  /// x [B,Cin,Z,Y,X] -> the normed tokens [B,N,E] (N + 1 with a class token), or with classification logits [B,K]; and what
  /// each block returned, [B,N,E].
  std::pair<torch::Tensor, std::vector<torch::Tensor>> forward(const torch::Tensor& x);

  nn::PatchEmbeddingBlock patch_embedding{nullptr};
  torch::nn::ModuleList blocks{nullptr};
  torch::nn::LayerNorm norm{nullptr};
  torch::Tensor cls_token;

 private:
  torch::nn::Linear head_{nullptr};
  bool tanh_ = false;
};
TORCH_MODULE(Vit);

}  // namespace fovea::models
