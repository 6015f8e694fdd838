#include "fovea/models/unetr.h"

#include <sstream>

#include "fovea/models/config_rule.h"
#include "fovea/nn/trace.h"

namespace fovea::models {
namespace {

constexpr int64_t kPatch = 16;
constexpr int64_t kBlocks = 12;

VitConfig vit_config(const UnetrConfig& config) {
  VitConfig vit;
  vit.in_channels = config.in_channels;
  vit.img_size = config.img_size;
  vit.patch_size = {kPatch, kPatch, kPatch};
  vit.hidden_size = config.hidden_size;
  vit.mlp_dim = config.mlp_dim;
  vit.num_layers = kBlocks;
  vit.num_heads = config.num_heads;
  vit.proj_type = config.proj_type;
  vit.dropout_rate = config.dropout_rate;
  vit.qkv_bias = config.qkv_bias;
  return vit;
}

}  // namespace

void UnetrConfig::validate() const {
  const ConfigRule rule("unetr");
  rule.expect(out_channels > 0, "out_channels", out_channels, "1 or more");
  rule.expect(feature_size > 0, "feature_size", feature_size, "1 or more");
  rule.one_of("norm_name", norm_name, {"instance"});
  rule.expect(img_size.size() == 3, "img_size", img_size, "three numbers");
  for (const int64_t length : img_size) rule.expect(length > 0 && length % kPatch == 0, "img_size", img_size, "multiples of 16");
  vit_config(*this).validate();
}

UnetrImpl::UnetrImpl(const UnetrConfig& config) : NetworkImpl("UNETR"), config_(config) {
  config.validate();
  const int64_t f = config.feature_size, e = config.hidden_size;
  const auto residual = config.res_block ? nn::Residual::kYes : nn::Residual::kNo;
  vit = register_module("vit", Vit(vit_config(config)));
  encoder1 = register_module("encoder1", nn::UnetrBasicBlock(config.in_channels, f, residual));
  encoder2 = register_module("encoder2", nn::UnetrProjectionUpBlock(e, 2 * f, 2, config.conv_block, residual));
  encoder3 = register_module("encoder3", nn::UnetrProjectionUpBlock(e, 4 * f, 1, config.conv_block, residual));
  encoder4 = register_module("encoder4", nn::UnetrProjectionUpBlock(e, 8 * f, 0, config.conv_block, residual));
  decoder5 = register_module("decoder5", nn::UnetrUpBlock(e, 8 * f, residual));
  decoder4 = register_module("decoder4", nn::UnetrUpBlock(8 * f, 4 * f, residual));
  decoder3 = register_module("decoder3", nn::UnetrUpBlock(4 * f, 2 * f, residual));
  decoder2 = register_module("decoder2", nn::UnetrUpBlock(2 * f, f, residual));
  out = register_module("out", nn::UnetOutBlock(f, config.out_channels));
}

Triple UnetrImpl::size_multiple() const { return {kPatch, kPatch, kPatch}; }

void UnetrImpl::check_input(const torch::Tensor& x) const {
  NetworkImpl::check_input(x);
  if (x.sizes().slice(2) == at::IntArrayRef(config_.img_size)) return;
  std::ostringstream line;
  line << "unetr: input is " << x.sizes() << ", expected the img_size of its configuration, " << at::IntArrayRef(config_.img_size);
  throw ArgumentError(line.str());
}

torch::Tensor UnetrImpl::forward(torch::Tensor x) {
  check_input(x);
  const auto [last, hidden] = vit(x);
  // b (z y x) e -> b e z y x
  const auto as_volume = [&](const torch::Tensor& tokens) {
    return tokens.view({x.size(0), x.size(2) / kPatch, x.size(3) / kPatch, x.size(4) / kPatch, tokens.size(2)}).permute({0, 4, 1, 2, 3});
  };
  auto up = decoder5(as_volume(last), encoder4(as_volume(hidden[9])));
  up = decoder4(up, encoder3(as_volume(hidden[6])));
  up = decoder3(up, encoder2(as_volume(hidden[3])));
  up = decoder2(up, encoder1(x));
  return nn::traced(this, out(up));
}

}  // namespace fovea::models
