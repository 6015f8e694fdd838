#pragma once
#include <string>
#include <vector>

#include <torch/torch.h>

#include "fovea/models/network.h"
#include "fovea/nn/cbam.h"
#include "fovea/nn/swin_stage.h"
#include "fovea/nn/unet_block.h"

namespace fovea::models {

struct SwinUnetrConfig {
  int64_t in_channels = 1;
  int64_t out_channels = 2;
  int64_t feature_size = 24;
  int64_t patch_size = 2;
  std::vector<int64_t> depths = {2, 2, 2, 2};
  std::vector<int64_t> num_heads = {3, 6, 12, 24};
  std::vector<int64_t> window_size = {7, 7, 7};
  bool qkv_bias = true;
  double mlp_ratio = 4;
  std::string norm_name = "instance";
  double drop_rate = 0;
  double attn_drop_rate = 0;
  double dropout_path_rate = 0;
  bool normalize = true;
  bool patch_norm = false;
  bool use_checkpoint = false;
  std::string downsample = "merging";
  bool use_v2 = false;
  int64_t deep_supervision = 0;
  bool pad_input = false;
  int64_t skip_gate = 0;
  std::string padded_tokens = "attend";
  std::string region_mask = "additive";
  std::string clipped_bias = "corner";

  template <class V>
  void visit(V& v) {
    v("in_channels", in_channels, "channels of the image");
    v("out_channels", out_channels, "classes, background included");
    v("feature_size", feature_size, "channels at full resolution; a stage doubles them");
    v("patch_size", patch_size, "edge of a token in voxels; 2");
    v("depths", depths, "transformer blocks of each of the four stages");
    v("num_heads", num_heads, "attention heads of each stage; each divides feature_size * 2^stage");
    v("window_size", window_size, "attention window in tokens, Z, Y, X");
    v("qkv_bias", qkv_bias, "bias on query, key and value");
    v("mlp_ratio", mlp_ratio, "hidden width of the perceptron over its input");
    v("norm_name", norm_name, "normalisation of the convolutional blocks; instance");
    v("drop_rate", drop_rate, "dropout of tokens and projections");
    v("attn_drop_rate", attn_drop_rate, "dropout of attention weights; 0 only");
    v("dropout_path_rate", dropout_path_rate, "stochastic depth of the last block; rises linearly from 0");
    v("normalize", normalize, "layer norm on the maps that the encoder hands over");
    v("patch_norm", patch_norm, "layer norm after the patch embedding");
    v("use_checkpoint", use_checkpoint, "recompute transformer blocks in backward: less memory, more time");
    v("downsample", downsample, "merging (MONAI 1.6), mergingv2, or merging_repeated (merging of MONAI 0.9 to 1.5)");
    v("use_v2", use_v2, "residual convolution block before each stage (SwinUNETR-V2)");
    v("deep_supervision", deep_supervision, "extra output heads at 1/2, 1/4, ... resolution; 0 to 4");
    v("pad_input", pad_input, "pad inputs to a multiple of 32 and crop the logits, instead of refusing them");
    v("skip_gate", skip_gate, "kernel edge of a spatial gate (CBAM) on each skip connection; 0: none");
    v("padded_tokens", padded_tokens, "attend (MONAI) or exclude: padded window positions as keys");
    v("region_mask", region_mask, "additive (-100, MONAI) or exclude: pairs that only the shift brought together");
    v("clipped_bias", clipped_bias, "corner (MONAI) or displacement: position bias in windows clipped to a small grid");
  }

  /// Throws ArgumentError naming the field, its value and what it should be.
  void validate() const;
};

/// 62 187 296 parameters from 1 to 14 channels.
SwinUnetrConfig swin_unetr_48();
SwinUnetrConfig swin_unetr_24();
SwinUnetrConfig swin_unetr_12();
SwinUnetrConfig swin_unetr_v2_48();

/// The encoder of SwinUNETR: patch embedding and four stages.
/// Names    patch_embed.*, layers{1..4}.0.*, with use_v2 layers{1..4}c.0.*
class SwinTransformerImpl : public torch::nn::Module {
 public:
  explicit SwinTransformerImpl(const SwinUnetrConfig& config);
  /// x [B,Cin,Z,Y,X] -> five maps [B,f*2^i,Z/2^(i+1),...], i = 0..4.
  std::vector<torch::Tensor> forward(const torch::Tensor& x);

  nn::PatchEmbed patch_embed{nullptr};
  torch::nn::Dropout pos_drop{nullptr};

 private:
  bool normalize_;
  std::vector<nn::SwinStage> stages_;
  std::vector<nn::UnetrBasicBlock> convolutions_;
};
TORCH_MODULE(SwinTransformer);

/// Swin transformer encoder, U-Net decoder. Parameter names as in MONAI's SwinUNETR, plus deep_out.i.conv.conv.*
/// and, with skip_gate, skip_gates.i.spatial.* (i = 0 at full resolution).
/// Source   Hatamizadeh et al. 2022, arXiv:2201.01266; V2: He et al. 2023, MICCAI
class SwinUnetrImpl : public NetworkImpl {
 public:
  explicit SwinUnetrImpl(const SwinUnetrConfig& config);

  torch::Tensor forward(torch::Tensor x) override;
  std::vector<torch::Tensor> forward_scales(torch::Tensor x) override;
  int64_t in_channels() const override { return config_.in_channels; }
  int64_t out_channels() const override { return config_.out_channels; }
  Triple size_multiple() const override;
  void check_input(const torch::Tensor& x) const override;
  const SwinUnetrConfig& config() const { return config_; }

  SwinTransformer swinViT{nullptr};
  nn::UnetrBasicBlock encoder1{nullptr}, encoder2{nullptr}, encoder3{nullptr}, encoder4{nullptr}, encoder10{nullptr};
  nn::UnetrUpBlock decoder5{nullptr}, decoder4{nullptr}, decoder3{nullptr}, decoder2{nullptr}, decoder1{nullptr};
  nn::UnetOutBlock out{nullptr};
  torch::nn::ModuleList deep_out{nullptr}, skip_gates{nullptr};

 private:
  std::vector<torch::Tensor> decode(torch::Tensor x, size_t heads);

  SwinUnetrConfig config_;
};
TORCH_MODULE(SwinUnetr);

}  // namespace fovea::models
