#include "fovea/models/swin_unetr.h"

#include "fovea/models/config_rule.h"
#include "fovea/nn/recompute.h"
#include "fovea/nn/trace.h"

namespace fovea::models {
namespace {

constexpr size_t kStages = 4;
constexpr int64_t kSizeMultiple = 32;  // patches of 2, then four mergings

nn::MergingOrder merging_order(const std::string& downsample) {
  if (downsample == "merging") return nn::MergingOrder::kAxisSum;
  return downsample == "mergingv2" ? nn::MergingOrder::kAll : nn::MergingOrder::kRepeated;
}

nn::WindowAttentionOptions attention_options(const SwinUnetrConfig& config, size_t stage) {
  const auto& w = config.window_size;
  return nn::WindowAttentionOptions(config.feature_size << stage, config.num_heads[stage])
      .window({w[0], w[1], w[2]})
      .qkv_bias(config.qkv_bias)
      .padded_tokens(config.padded_tokens == "attend" ? nn::PaddedTokens::kAttend : nn::PaddedTokens::kExclude)
      .region_mask(config.region_mask == "additive" ? nn::RegionMask::kAdditive : nn::RegionMask::kExclude)
      .clipped_bias(config.clipped_bias == "corner" ? nn::ClippedBias::kCornerOfIndex : nn::ClippedBias::kDisplacement);
}

// [B,C,Z,Y,X], channels last in memory afterwards.
torch::Tensor channel_norm(const torch::Tensor& x) {
  return torch::layer_norm(x.permute({0, 2, 3, 4, 1}), {x.size(1)}).permute({0, 4, 1, 2, 3});
}

}  // namespace

void SwinUnetrConfig::validate() const {
  const ConfigRule rule("swin_unetr");
  rule.expect(in_channels > 0, "in_channels", in_channels, "1 or more");
  rule.expect(out_channels > 0, "out_channels", out_channels, "1 or more");
  rule.expect(feature_size > 0, "feature_size", feature_size, "1 or more");
  rule.expect(patch_size == 2, "patch_size", patch_size, "2: the decoder doubles the grid five times");
  rule.expect(depths.size() == kStages, "depths", depths, "four numbers");
  rule.expect(num_heads.size() == kStages, "num_heads", num_heads, "four numbers");
  rule.expect(window_size.size() == 3, "window_size", window_size, "three numbers");
  for (const int64_t depth : depths) rule.expect(depth > 0, "depths", depths, "1 or more each");
  for (const int64_t length : window_size) rule.expect(length > 0, "window_size", window_size, "1 or more each");
  for (size_t i = 0; i < kStages; ++i) {
    rule.expect(num_heads[i] > 0 && (feature_size << i) % num_heads[i] == 0, "num_heads", num_heads,
                "divisors of feature_size * 2^stage, feature_size " + std::to_string(feature_size));
  }
  rule.expect(mlp_ratio > 0, "mlp_ratio", mlp_ratio, "more than 0");
  rule.one_of("norm_name", norm_name, {"instance"});
  rule.expect(drop_rate >= 0 && drop_rate < 1, "drop_rate", drop_rate, "0 <= rate < 1");
  rule.expect(attn_drop_rate == 0, "attn_drop_rate", attn_drop_rate, "0: the fused attention has no dropout of weights; use drop_rate or dropout_path_rate");
  rule.expect(dropout_path_rate >= 0 && dropout_path_rate < 1, "dropout_path_rate", dropout_path_rate, "0 <= rate < 1");
  rule.one_of("downsample", downsample, {"merging", "mergingv2", "merging_repeated"});
  rule.expect(deep_supervision >= 0 && deep_supervision <= 4, "deep_supervision", deep_supervision, "0 to 4");
  rule.expect(skip_gate == 0 || (skip_gate > 0 && skip_gate % 2 == 1), "skip_gate", skip_gate, "0 or an odd number");
  rule.one_of("padded_tokens", padded_tokens, {"attend", "exclude"});
  rule.one_of("region_mask", region_mask, {"additive", "exclude"});
  rule.one_of("clipped_bias", clipped_bias, {"corner", "displacement"});
}

namespace {
SwinUnetrConfig of_feature_size(int64_t feature_size) {
  SwinUnetrConfig config;
  config.feature_size = feature_size;
  return config;
}
}  // namespace

SwinUnetrConfig swin_unetr_48() { return of_feature_size(48); }
SwinUnetrConfig swin_unetr_24() { return of_feature_size(24); }
SwinUnetrConfig swin_unetr_12() { return of_feature_size(12); }
SwinUnetrConfig swin_unetr_v2_48() {
  auto config = of_feature_size(48);
  config.use_v2 = true;
  return config;
}

SwinTransformerImpl::SwinTransformerImpl(const SwinUnetrConfig& config) : normalize_(config.normalize) {
  patch_embed = register_module("patch_embed", nn::PatchEmbed(nn::PatchEmbedOptions(config.in_channels, config.feature_size)
                                                                  .patch({config.patch_size, config.patch_size, config.patch_size})
                                                                  .norm(config.patch_norm)));
  pos_drop = register_module("pos_drop", torch::nn::Dropout(config.drop_rate));
  int64_t blocks = 0, block = 0;
  for (const int64_t depth : config.depths) blocks += depth;
  for (size_t i = 0; i < kStages; ++i) {
    std::vector<double> drop_path;
    for (int64_t d = 0; d < config.depths[i]; ++d, ++block) {
      drop_path.push_back(blocks > 1 ? config.dropout_path_rate * static_cast<double>(block) / static_cast<double>(blocks - 1) : 0);
    }
    nn::SwinStage stage(nn::SwinStageOptions(attention_options(config, i))
                            .drop_path(drop_path)
                            .mlp_ratio(config.mlp_ratio)
                            .dropout(config.drop_rate)
                            .merging(merging_order(config.downsample))
                            .recompute(config.use_checkpoint));
    stages_.push_back(stage);
    const std::string name = "layers" + std::to_string(i + 1);
    register_module(name, torch::nn::ModuleList(stage));
    if (config.use_v2) {
      const int64_t channels = config.feature_size << i;
      convolutions_.emplace_back(channels, channels, nn::Residual::kYes);
      register_module(name + "c", torch::nn::ModuleList(convolutions_.back()));
    }
  }
}

std::vector<torch::Tensor> SwinTransformerImpl::forward(const torch::Tensor& x) {
  std::vector<torch::Tensor> maps;
  const auto hand_over = [&](const torch::Tensor& map) { maps.push_back(normalize_ ? channel_norm(map) : map); };
  auto map = pos_drop(patch_embed(x));
  hand_over(map);
  for (size_t i = 0; i < stages_.size(); ++i) {
    if (!convolutions_.empty()) map = convolutions_[i](map);
    map = stages_[i](map);
    hand_over(map);
  }
  return maps;
}

SwinUnetrImpl::SwinUnetrImpl(const SwinUnetrConfig& config) : NetworkImpl("SwinUNETR"), config_(config) {
  config.validate();
  const int64_t f = config.feature_size;
  using nn::Residual;
  swinViT = register_module("swinViT", SwinTransformer(config));
  encoder1 = register_module("encoder1", nn::UnetrBasicBlock(config.in_channels, f, Residual::kYes));
  encoder2 = register_module("encoder2", nn::UnetrBasicBlock(f, f, Residual::kYes));
  encoder3 = register_module("encoder3", nn::UnetrBasicBlock(2 * f, 2 * f, Residual::kYes));
  encoder4 = register_module("encoder4", nn::UnetrBasicBlock(4 * f, 4 * f, Residual::kYes));
  encoder10 = register_module("encoder10", nn::UnetrBasicBlock(16 * f, 16 * f, Residual::kYes));
  decoder5 = register_module("decoder5", nn::UnetrUpBlock(16 * f, 8 * f, Residual::kYes));
  decoder4 = register_module("decoder4", nn::UnetrUpBlock(8 * f, 4 * f, Residual::kYes));
  decoder3 = register_module("decoder3", nn::UnetrUpBlock(4 * f, 2 * f, Residual::kYes));
  decoder2 = register_module("decoder2", nn::UnetrUpBlock(2 * f, f, Residual::kYes));
  decoder1 = register_module("decoder1", nn::UnetrUpBlock(f, f, Residual::kYes));
  out = register_module("out", nn::UnetOutBlock(f, config.out_channels));
  deep_out = torch::nn::ModuleList();
  const int64_t widths[] = {f, 2 * f, 4 * f, 8 * f};
  for (int64_t i = 0; i < config.deep_supervision; ++i) deep_out->push_back(nn::UnetOutBlock(widths[i], config.out_channels));
  if (config.deep_supervision > 0) register_module("deep_out", deep_out);
  skip_gates = torch::nn::ModuleList();
  if (config.skip_gate > 0) {
    for (int i = 0; i < 5; ++i) skip_gates->push_back(nn::SpatialGate(nn::SpatialGateOptions().kernel(config.skip_gate)));
    register_module("skip_gates", skip_gates);
  }
}

Triple SwinUnetrImpl::size_multiple() const {
  return config_.pad_input ? Triple{1, 1, 1} : Triple{kSizeMultiple, kSizeMultiple, kSizeMultiple};
}

void SwinUnetrImpl::check_input(const torch::Tensor& x) const {
  NetworkImpl::check_input(x);
  int64_t bottom = 1;
  for (int axis = 2; axis < 5; ++axis) bottom *= (x.size(axis) + kSizeMultiple - 1) / kSizeMultiple;
  ConfigRule("swin_unetr").expect(bottom > 1, "input", x.sizes().vec(),
                                  "more than 32 voxels along some axis: instance norm of one value is not defined at the bottom");
}

torch::Tensor SwinUnetrImpl::forward(torch::Tensor x) { return decode(std::move(x), /*heads=*/0).front(); }

std::vector<torch::Tensor> SwinUnetrImpl::forward_scales(torch::Tensor x) { return decode(std::move(x), deep_out->size()); }

std::vector<torch::Tensor> SwinUnetrImpl::decode(torch::Tensor x, size_t heads) {
  check_input(x);
  const auto size = x.sizes().vec();
  if (config_.pad_input) x = nn::pad_to_multiple(x, {kSizeMultiple, kSizeMultiple, kSizeMultiple});

  const auto gated = [this](size_t scale, const torch::Tensor& skip) {
    return skip_gates->is_empty() ? skip : skip_gates[scale]->as<nn::SpatialGate>()->forward(skip);
  };
  const auto maps = swinViT(x);
  const auto bottom = encoder10(maps[4]);
  const auto up4 = decoder5(bottom, gated(4, maps[3]));
  const auto up3 = decoder4(up4, gated(3, encoder4(maps[2])));
  const auto up2 = decoder3(up3, gated(2, encoder3(maps[1])));
  const auto up1 = decoder2(up2, gated(1, encoder2(maps[0])));
  // Its output is kept beside up1 anyway; what it keeps at full resolution would be an eighth of a training step's memory.
  const auto skip = nn::recomputed([this](torch::Tensor in) { return encoder1(in); }, x);
  const auto full = decoder1(up1, gated(0, skip));

  std::vector<torch::Tensor> scales = {out(full)};
  const torch::Tensor decoded[] = {up1, up2, up3, up4};
  for (size_t i = 0; i < heads; ++i) scales.push_back(deep_out[i]->as<nn::UnetOutBlock>()->forward(decoded[i]));
  if (config_.pad_input) {
    for (size_t i = 0; i < scales.size(); ++i) {
      for (int axis = 2; axis < 5; ++axis) scales[i] = scales[i].slice(axis, 0, (size[axis] + (1 << i) - 1) >> i);
    }
  }
  nn::traced(this, scales.front());
  return scales;
}

}  // namespace fovea::models
