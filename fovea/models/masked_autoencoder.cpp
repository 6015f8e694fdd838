#include "fovea/models/masked_autoencoder.h"

#include "fovea/core/error.h"
#include "fovea/models/config_rule.h"
#include "fovea/nn/initialise.h"

namespace fovea::models {

namespace {
nn::PositionEmbedding position_of(const std::string& name) {
  return name == "sincos" ? nn::PositionEmbedding::kSinCos : name == "learnable" ? nn::PositionEmbedding::kLearnable : nn::PositionEmbedding::kNone;
}

nn::Triple triple(const std::vector<int64_t>& v) { return v.size() == 2 ? nn::Triple{1, v[0], v[1]} : nn::Triple{v[0], v[1], v[2]}; }

torch::Tensor as_volume(const torch::Tensor& x) { return x.dim() == 4 ? x.unsqueeze(2) : x; }

// Each patch's own row, [B,K,E], of indices [B,K].
torch::Tensor row_of(const torch::Tensor& kept, int64_t width) { return kept.unsqueeze(2).expand({-1, -1, width}); }

torch::nn::ModuleList transformer(const nn::SelfAttentionOptions& attention, int64_t mlp_dim, int64_t layers, double eps) {
  torch::nn::ModuleList list;
  for (int64_t i = 0; i < layers; ++i) {
    nn::TransformerBlock block(attention, mlp_dim);
    block->norm1->options.eps(eps), block->norm2->options.eps(eps);
    list->push_back(block);
  }
  list->push_back(torch::nn::LayerNorm(torch::nn::LayerNormOptions({attention.dim()}).eps(eps)));
  return list;
}

torch::Tensor run(torch::nn::ModuleList& blocks, torch::Tensor x, const torch::Tensor& places) {
  for (size_t i = 0; i + 1 < blocks->size(); ++i) x = blocks->at<nn::TransformerBlockImpl>(i).forward(x, places);
  return blocks->at<torch::nn::LayerNormImpl>(blocks->size() - 1).forward(x);
}
}  // namespace

void MaskedAutoencoderConfig::validate() const {
  const ConfigRule rule("masked_autoencoder");
  rule.expect(in_channels > 0, "in_channels", in_channels, "1 or more");
  rule.expect(img_size.size() == 2 || img_size.size() == 3, "img_size", img_size, "two or three numbers");
  rule.expect(patch_size.size() == img_size.size(), "patch_size", patch_size, "as many numbers as img_size");
  double tokens = 1;
  for (size_t axis = 0; axis < img_size.size(); ++axis) {
    rule.expect(patch_size[axis] > 0, "patch_size", patch_size, "1 or more each");
    rule.expect(img_size[axis] > 0 && img_size[axis] % patch_size[axis] == 0, "img_size", img_size, "multiples of patch_size");
    tokens *= double(img_size[axis] / patch_size[axis]);
  }
  rule.expect(tokens <= double(1 << 24), "img_size", img_size, "at most 2^24 patches of patch_size");
  rule.one_of("proj_type", proj_type, {"conv", "perceptron"});
  rule.one_of("pos_embed_type", pos_embed_type, {"learnable", "sincos", "none"});
  rule.one_of("decoder_pos_embed_type", decoder_pos_embed_type, {"learnable", "sincos", "none"});
  const int64_t waves = 2 * int64_t(img_size.size());
  const auto width = [&](const char* name, int64_t value, int64_t heads, const std::string& position) {
    rule.expect(heads > 0 && value > 0 && value % heads == 0, name, value, "a multiple of the " + std::to_string(heads) + " heads");
    rule.expect(position != "sincos" || value % waves == 0, name, value, "a multiple of " + std::to_string(waves) + " with sincos positions");
  };
  width("hidden_size", hidden_size, num_heads, pos_embed_type);
  width("decoder_hidden_size", decoder_hidden_size, decoder_num_heads, decoder_pos_embed_type);
  rule.expect(mlp_dim > 0, "mlp_dim", mlp_dim, "1 or more");
  rule.expect(decoder_mlp_dim > 0, "decoder_mlp_dim", decoder_mlp_dim, "1 or more");
  rule.expect(num_layers > 0, "num_layers", num_layers, "1 or more");
  rule.expect(decoder_num_layers > 0, "decoder_num_layers", decoder_num_layers, "1 or more");
  rule.expect(out_channels >= 0, "out_channels", out_channels, "0 or more");
  rule.expect(norm_eps > 0, "norm_eps", norm_eps, "above 0");
}

MaskedAutoencoderConfig masked_autoencoder_small() {
  MaskedAutoencoderConfig config;
  config.patch_size = {8, 8, 8};
  config.hidden_size = 192, config.mlp_dim = 768, config.num_layers = 6, config.num_heads = 6;
  config.decoder_hidden_size = 96, config.decoder_mlp_dim = 384, config.decoder_num_layers = 2, config.decoder_num_heads = 6;
  config.distance = true;
  return config;
}

MaskedAutoencoderImpl::MaskedAutoencoderImpl(const MaskedAutoencoderConfig& config) : config_(config) {
  config.validate();
  patch_ = triple(config.patch_size);
  const int64_t axes = int64_t(config.img_size.size()), E = config.hidden_size, D = config.decoder_hidden_size;
  const auto token = [](int64_t width) {
    auto values = torch::empty({1, 1, width});
    nn::truncated_normal_(values);
    return values;
  };
  cls_token = register_parameter("cls_token", token(E));
  patch_embedding = register_module(
      "patch_embedding", nn::PatchEmbeddingBlock(nn::PatchEmbeddingOptions(config.in_channels, triple(config.img_size), patch_, E)
                                                     .projection(config.proj_type == "conv" ? nn::PatchProjection::kConvolution : nn::PatchProjection::kPerceptron)
                                                     .position(position_of(config.pos_embed_type))
                                                     .axes(axes)));
  blocks = register_module("blocks", transformer(nn::SelfAttentionOptions(E, config.num_heads).qkv_bias(config.qkv_bias).distance(config.distance), config.mlp_dim, config.num_layers, config.norm_eps));
  decoder_embed = register_module("decoder_embed", torch::nn::Linear(E, D));
  mask_tokens = register_parameter("mask_tokens", token(D));
  const auto& grid = patch_embedding->grid();
  const auto position = position_of(config.decoder_pos_embed_type);
  auto table = position == nn::PositionEmbedding::kSinCos ? nn::sincos_positions(grid, D, axes) : torch::zeros({1, grid[0] * grid[1] * grid[2], D});
  if (position == nn::PositionEmbedding::kLearnable) nn::truncated_normal_(table);
  decoder_pos_embedding = register_parameter("decoder_pos_embedding", table, position == nn::PositionEmbedding::kLearnable);
  decoder_blocks = register_module("decoder_blocks", transformer(nn::SelfAttentionOptions(D, config.decoder_num_heads).qkv_bias(config.qkv_bias).distance(config.distance), config.decoder_mlp_dim,
                                                                 config.decoder_num_layers, config.norm_eps));
  if (config.distance) {
    const auto axis = [](int64_t n) { return torch::arange(n, torch::kFloat); };
    const auto mesh = torch::meshgrid({axis(grid[0]), axis(grid[1]), axis(grid[2])}, "ij");
    all_places_ = torch::stack({mesh[0].flatten(), mesh[1].flatten(), mesh[2].flatten()}, 1);
  }
  decoder_pred = register_module("decoder_pred", torch::nn::Linear(D, patch_[0] * patch_[1] * patch_[2] * out_channels()));
}

Triple MaskedAutoencoderImpl::size_multiple() const { return triple(config_.img_size); }

void MaskedAutoencoderImpl::check_input(const torch::Tensor& x) const {
  const auto size = triple(config_.img_size);
  const bool fits = x.dim() == 2 + int64_t(config_.img_size.size()) || (x.dim() == 5 && size[0] == 1);
  if (!fits || x.size(1) != config_.in_channels || as_volume(x).sizes().slice(2) != torch::IntArrayRef(size))
    throw ArgumentError(c10::str("masked autoencoder: x is ", x.sizes(), ", expected [B,", config_.in_channels, "] and ", torch::IntArrayRef(config_.img_size)));
}

torch::Tensor MaskedAutoencoderImpl::places(const torch::Tensor& kept, int64_t images) const {
  if (!all_places_.defined()) return {};
  return kept.defined() ? all_places_.index_select(0, kept.flatten()).view({images, -1, 3}) : all_places_.unsqueeze(0).expand({images, -1, -1});
}

torch::Tensor MaskedAutoencoderImpl::encode(const torch::Tensor& x, const torch::Tensor& kept) {
  check_input(x);
  const auto image = as_volume(x);
  if (kept.defined() && (kept.dim() != 2 || kept.size(0) != x.size(0) || kept.scalar_type() != torch::kLong))
    throw ArgumentError(c10::str("masked autoencoder: kept is ", kept.sizes(), " ", kept.scalar_type(), ", expected int64 [", x.size(0), ",K]"));
  if (kept.defined() && kept.numel() > 0 && (kept.min().item<int64_t>() < 0 || kept.max().item<int64_t>() >= tokens()))
    throw ArgumentError(c10::str("masked autoencoder: a kept patch is outside 0 to ", tokens() - 1));
  const auto patches = kept.defined() ? patch_embedding->forward_kept(image, kept) : patch_embedding->forward(image);
  return run(blocks, torch::cat({cls_token.expand({x.size(0), -1, -1}), patches}, 1), places(kept, x.size(0)));
}

torch::Tensor MaskedAutoencoderImpl::decode(const torch::Tensor& encoded, const torch::Tensor& kept) {
  const auto narrow = decoder_embed(encoded);
  auto patches = narrow.slice(1, 1);
  if (kept.defined()) patches = mask_tokens.expand({narrow.size(0), tokens(), -1}).scatter(1, row_of(kept, narrow.size(2)), patches);
  const auto y = run(decoder_blocks, torch::cat({narrow.slice(1, 0, 1), patches + decoder_pos_embedding}, 1), places({}, narrow.size(0)));
  return decoder_pred(y.slice(1, 1));
}

torch::Tensor MaskedAutoencoderImpl::rows(const torch::Tensor& x, const torch::Tensor& kept) { return decode(encode(x, kept), kept); }

torch::Tensor MaskedAutoencoderImpl::volume(const torch::Tensor& rows) const {
  const auto v = nn::volume_of_rows(rows, grid(), patch_);
  return config_.img_size.size() == 2 ? v.squeeze(2) : v;
}

std::vector<nn::SelfAttention> MaskedAutoencoderImpl::attention() {
  std::vector<nn::SelfAttention> all;
  for (auto list : {blocks, decoder_blocks})
    for (size_t i = 0; i + 1 < list->size(); ++i) all.push_back(list->at<nn::TransformerBlockImpl>(i).attn);
  return all;
}

torch::Tensor hidden_patch_loss(const MaskedAutoencoderImpl& network, const torch::Tensor& x, const torch::Tensor& rows, const torch::Tensor& kept, bool normalise) {
  auto target = nn::patch_rows(as_volume(x), network.patch());
  if (rows.sizes() != target.sizes()) throw ArgumentError(c10::str("hidden patch loss: rows are ", rows.sizes(), ", expected ", target.sizes()));
  if (kept.size(1) >= target.size(1)) throw ArgumentError(c10::str("hidden patch loss: all ", target.size(1), " patches are kept, expected some that are hidden"));
  if (normalise) target = (target - target.mean(-1, true)) / (target.var(-1, /*unbiased=*/true, /*keepdim=*/true) + 1e-6).sqrt();
  const auto hidden = torch::ones(target.sizes().slice(0, 2), target.options()).scatter(1, kept, 0);
  return ((rows - target).square().mean(-1) * hidden).sum() / hidden.sum();
}

}  // namespace fovea::models
