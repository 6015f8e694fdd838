#pragma once
#include <string>
#include <vector>

#include <torch/torch.h>

#include "fovea/models/network.h"
#include "fovea/nn/patch_embedding_block.h"
#include "fovea/nn/transformer_block.h"

namespace fovea::models {

struct MaskedAutoencoderConfig {
  int64_t in_channels = 1;
  std::vector<int64_t> img_size = {96, 96, 96};
  std::vector<int64_t> patch_size = {16, 16, 16};
  int64_t hidden_size = 768;
  int64_t mlp_dim = 512;
  int64_t num_layers = 12;
  int64_t num_heads = 12;
  int64_t decoder_hidden_size = 384;
  int64_t decoder_mlp_dim = 512;
  int64_t decoder_num_layers = 4;
  int64_t decoder_num_heads = 12;
  int64_t out_channels = 0;
  std::string proj_type = "conv";
  std::string pos_embed_type = "sincos";
  std::string decoder_pos_embed_type = "sincos";
  double norm_eps = 1e-5;
  bool qkv_bias = false;
  bool distance = false;

  template <class V>
  void visit(V& v) {
    v("in_channels", in_channels, "channels of the image");
    v("img_size", img_size, "voxels, Z, Y, X; two numbers: an image, Y, X");
    v("patch_size", patch_size, "voxels of a token; divides img_size");
    v("hidden_size", hidden_size, "width of the encoder's tokens");
    v("mlp_dim", mlp_dim, "hidden width of the encoder's perceptrons");
    v("num_layers", num_layers, "blocks of the encoder");
    v("num_heads", num_heads, "heads of the encoder; divides hidden_size");
    v("decoder_hidden_size", decoder_hidden_size, "width of the decoder's tokens");
    v("decoder_mlp_dim", decoder_mlp_dim, "hidden width of the decoder's perceptrons");
    v("decoder_num_layers", decoder_num_layers, "blocks of the decoder");
    v("decoder_num_heads", decoder_num_heads, "heads of the decoder; divides decoder_hidden_size");
    v("out_channels", out_channels, "values told of each voxel: classes; 0: those of the image, which is what is hidden and rebuilt");
    v("proj_type", proj_type, "conv or perceptron: how patches are projected; the same map");
    v("pos_embed_type", pos_embed_type, "sincos, learnable or none, of the encoder");
    v("decoder_pos_embed_type", decoder_pos_embed_type, "sincos, learnable or none, of the decoder");
    v("norm_eps", norm_eps, "of the layer norms: 1e-5 as in MONAI, 1e-6 as in He's code");
    v("qkv_bias", qkv_bias, "bias on query, key and value");
    v("distance", distance, "heads weigh patches down by their distance, each with a learned reach");
  }

  /// Throws ArgumentError naming the field, its value and what it should be.
  void validate() const;
};

/// 8^3 patches, encoder 192 wide with 6 blocks, decoder 96 with 2, heads that begin local: trains on a few processors.
MaskedAutoencoderConfig masked_autoencoder_small();

/// Masked autoencoder: the encoder sees the visible patches alone, the decoder fills in a learned token for each hidden
/// one and tells the voxels of all.
///   x = [class, embed(kept patches) + position];  x = norm(blocks(x))
///   y = decoder_embed(x), the mask token at hidden places, + the decoder's position;  rows = pred(norm(blocks(y)))
/// With classes for out_channels the same network labels voxels, all patches visible: encoder and decoder both start
/// from what was learnt without labels.
/// Shapes   x [B,Cin,Z,Y,X] or [B,Cin,Y,X] of the configuration's size; kept int64 [B,K], ascending, or undefined for all
///          -> rows [B,N,voxels*Cout], voxels of a patch Z slowest, values of a voxel fastest (nn::patch_rows)
/// Names    those of MONAI's MaskedAutoEncoderViT: cls_token, patch_embedding.*, blocks.i.*, decoder_embed.*, mask_tokens,
///          decoder_pos_embedding, decoder_blocks.i.*, decoder_pred.*; the last of either blocks is a LayerNorm
/// Errors   ArgumentError: channels, sizes, indices
/// Cost     encoder O(K^2) attention and O(K) else: at 97 % hidden 1/1127 of the pairs
/// Source   He et al. 2022, arXiv:2111.06377
class MaskedAutoencoderImpl : public NetworkImpl {
 public:
  explicit MaskedAutoencoderImpl(const MaskedAutoencoderConfig& config);

  /// All patches visible: [B,Cout,Z,Y,X], or [B,Cout,Y,X].
  torch::Tensor forward(torch::Tensor x) override { return volume(rows(x)); }
  int64_t in_channels() const override { return config_.in_channels; }
  int64_t out_channels() const override { return config_.out_channels > 0 ? config_.out_channels : config_.in_channels; }
  Triple size_multiple() const override;
  void check_input(const torch::Tensor& x) const override;

  torch::Tensor rows(const torch::Tensor& x, const torch::Tensor& kept = {});
  /// What the encoder makes of the visible patches, class token first: [B,1+K,E].
  torch::Tensor encode(const torch::Tensor& x, const torch::Tensor& kept = {});
  /// Encoded tokens [B,1+K,E] -> rows of all patches, in the order of rows().
  torch::Tensor decode(const torch::Tensor& encoded, const torch::Tensor& kept = {});
  /// rows of all patches -> [B,Cout,Z,Y,X], or [B,Cout,Y,X].
  torch::Tensor volume(const torch::Tensor& rows) const;

  /// Attention of the blocks, encoder first: for capture and rows.
  std::vector<nn::SelfAttention> attention();
  int64_t tokens() const { return decoder_pos_embedding.size(1); }
  const nn::Triple& grid() const { return patch_embedding->grid(); }
  const nn::Triple& patch() const { return patch_; }
  const MaskedAutoencoderConfig& config() const { return config_; }

  nn::PatchEmbeddingBlock patch_embedding{nullptr};
  torch::nn::ModuleList blocks{nullptr}, decoder_blocks{nullptr};
  torch::nn::Linear decoder_embed{nullptr}, decoder_pred{nullptr};
  torch::Tensor cls_token, mask_tokens, decoder_pos_embedding;

 private:
  torch::Tensor places(const torch::Tensor& kept, int64_t images) const;  // [B,K,3] in patches, or nothing

  MaskedAutoencoderConfig config_;
  nn::Triple patch_{};
  torch::Tensor all_places_;  // [N,3]
};
TORCH_MODULE(MaskedAutoencoder);

/// Mean square error of the rows of the hidden patches, kept int64 [B,K]: what is learnt without labels.
/// normalise    each patch's target in units of its own mean and deviation (variance + 1e-6, unbiased)
/// Shapes   x as above, rows [B,N,P]; a scalar
/// Source   He et al. 2022, section 3 and table 1d
torch::Tensor hidden_patch_loss(const MaskedAutoencoderImpl& network, const torch::Tensor& x, const torch::Tensor& rows, const torch::Tensor& kept, bool normalise = false);

}  // namespace fovea::models
