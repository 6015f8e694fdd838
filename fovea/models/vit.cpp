#include "fovea/models/vit.h"

#include "fovea/models/config_rule.h"
#include "fovea/nn/trace.h"

namespace fovea::models {

namespace {
constexpr double kMostTokens = 1 << 24;  // their positions alone would take 50 GB at the usual width
}

void VitConfig::validate() const {
  const ConfigRule rule("vit");
  rule.expect(in_channels > 0, "in_channels", in_channels, "1 or more");
  rule.expect(img_size.size() == 3, "img_size", img_size, "three numbers");
  rule.expect(patch_size.size() == 3, "patch_size", patch_size, "three numbers");
  rule.one_of("proj_type", proj_type, {"conv", "perceptron"});
  rule.one_of("pos_embed_type", pos_embed_type, {"learnable", "sincos", "none"});
  rule.one_of("post_activation", post_activation, {"Tanh", "none"});
  for (int axis = 0; axis < 3; ++axis) {
    rule.expect(patch_size[axis] > 0, "patch_size", patch_size, "1 or more each");
    rule.expect(img_size[axis] >= patch_size[axis], "img_size", img_size, "at least patch_size");
    rule.expect(proj_type == "conv" || img_size[axis] % patch_size[axis] == 0, "img_size", img_size, "multiples of patch_size with proj_type perceptron");
  }
  double tokens = 1;
  for (int axis = 0; axis < 3; ++axis) tokens *= double(img_size[axis] / patch_size[axis]);
  rule.expect(tokens <= kMostTokens, "img_size", img_size, "at most 2^24 patches of patch_size");
  rule.expect(num_heads > 0 && hidden_size > 0 && hidden_size % num_heads == 0, "num_heads", num_heads, "a divisor of hidden_size " + std::to_string(hidden_size));
  rule.expect(pos_embed_type != "sincos" || hidden_size % 6 == 0, "hidden_size", hidden_size, "a multiple of 6 with pos_embed_type sincos");
  rule.expect(mlp_dim > 0, "mlp_dim", mlp_dim, "1 or more");
  rule.expect(num_layers > 0, "num_layers", num_layers, "1 or more");
  rule.expect(!classification || num_classes > 0, "num_classes", num_classes, "1 or more");
  rule.expect(dropout_rate >= 0 && dropout_rate < 1, "dropout_rate", dropout_rate, "0 <= rate < 1");
}

VitImpl::VitImpl(const VitConfig& config) : torch::nn::Module("ViT") {
  config.validate();
  const auto triple = [](const std::vector<int64_t>& v) { return nn::Triple{v[0], v[1], v[2]}; };
  const auto position = config.pos_embed_type == "learnable" ? nn::PositionEmbedding::kLearnable
                        : config.pos_embed_type == "sincos"  ? nn::PositionEmbedding::kSinCos
                                                             : nn::PositionEmbedding::kNone;
  patch_embedding = register_module(
      "patch_embedding", nn::PatchEmbeddingBlock(nn::PatchEmbeddingOptions(config.in_channels, triple(config.img_size), triple(config.patch_size), config.hidden_size)
                                                     .projection(config.proj_type == "conv" ? nn::PatchProjection::kConvolution : nn::PatchProjection::kPerceptron)
                                                     .position(position)
                                                     .dropout(config.dropout_rate)));
  blocks = register_module("blocks", torch::nn::ModuleList());
  const auto attention = nn::SelfAttentionOptions(config.hidden_size, config.num_heads).qkv_bias(config.qkv_bias).dropout(config.dropout_rate);
  for (int64_t i = 0; i < config.num_layers; ++i) blocks->push_back(nn::TransformerBlock(attention, config.mlp_dim));
  norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({config.hidden_size})));
  if (!config.classification) return;
  cls_token = register_parameter("cls_token", torch::zeros({1, 1, config.hidden_size}));
  head_ = torch::nn::Linear(config.hidden_size, config.num_classes);
  tanh_ = config.post_activation == "Tanh";
  if (tanh_) {
    register_module("classification_head", torch::nn::Sequential(head_, torch::nn::Tanh()));
  } else {
    register_module("classification_head", head_);
  }
}

std::pair<torch::Tensor, std::vector<torch::Tensor>> VitImpl::forward(const torch::Tensor& x) {
  auto tokens = patch_embedding(x);
  if (cls_token.defined()) tokens = torch::cat({cls_token.expand({x.size(0), -1, -1}), tokens}, 1);
  std::vector<torch::Tensor> hidden;
  for (const auto& block : *blocks) {
    tokens = block->as<nn::TransformerBlock>()->forward(tokens);
    hidden.push_back(tokens);
  }
  tokens = norm(tokens);
  if (!head_) return {nn::traced(this, tokens), hidden};
  const auto logits = head_(tokens.select(1, 0));
  return {nn::traced(this, tanh_ ? torch::tanh(logits) : logits), hidden};
}

}  // namespace fovea::models
