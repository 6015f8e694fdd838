#pragma once
#include <string>
#include <vector>

#include "fovea/models/network.h"
#include "fovea/models/vit.h"
#include "fovea/nn/unet_block.h"

namespace fovea::models {

struct UnetrConfig {
  int64_t in_channels = 1;
  int64_t out_channels = 2;
  std::vector<int64_t> img_size = {96, 96, 96};
  int64_t feature_size = 16;
  int64_t hidden_size = 768;
  int64_t mlp_dim = 3072;
  int64_t num_heads = 12;
  std::string proj_type = "conv";
  std::string norm_name = "instance";
  bool conv_block = true;
  bool res_block = true;
  double dropout_rate = 0;
  bool qkv_bias = false;

  template <class V>
  void visit(V& v) {
    v("in_channels", in_channels, "channels of the image");
    v("out_channels", out_channels, "classes, background included");
    v("img_size", img_size, "voxels of the input, Z, Y, X; multiples of 16");
    v("feature_size", feature_size, "channels at full resolution");
    v("hidden_size", hidden_size, "width of a token");
    v("mlp_dim", mlp_dim, "hidden width of the perceptron");
    v("num_heads", num_heads, "attention heads; divides hidden_size");
    v("proj_type", proj_type, "conv or perceptron: how patches are projected");
    v("norm_name", norm_name, "normalisation of the convolutional blocks; instance");
    v("conv_block", conv_block, "convolve after each doubling on the way from the tokens");
    v("res_block", res_block, "residual connections in the convolutional blocks");
    v("dropout_rate", dropout_rate, "dropout of tokens, projections and perceptrons");
    v("qkv_bias", qkv_bias, "bias on query, key and value");
  }

  /// Throws ArgumentError naming the field, its value and what it should be.
  void validate() const;
};

/// Vision transformer of 12 blocks on 16^3 patches, U-Net decoder on its blocks 3, 6, 9 and 12. Parameter names as in
/// MONAI's UNETR. The input has the size of the configuration.
/// Source   Hatamizadeh et al. 2022, arXiv:2103.10504
class UnetrImpl : public NetworkImpl {
 public:
  explicit UnetrImpl(const UnetrConfig& config);

  torch::Tensor forward(torch::Tensor x) override;
  int64_t in_channels() const override { return config_.in_channels; }
  int64_t out_channels() const override { return config_.out_channels; }
  Triple size_multiple() const override;
  void check_input(const torch::Tensor& x) const override;
  const UnetrConfig& config() const { return config_; }

  Vit vit{nullptr};
  nn::UnetrBasicBlock encoder1{nullptr};
  nn::UnetrProjectionUpBlock encoder2{nullptr}, encoder3{nullptr}, encoder4{nullptr};
  nn::UnetrUpBlock decoder5{nullptr}, decoder4{nullptr}, decoder3{nullptr}, decoder2{nullptr};
  nn::UnetOutBlock out{nullptr};

 private:
  UnetrConfig config_;
};
TORCH_MODULE(Unetr);

}  // namespace fovea::models
