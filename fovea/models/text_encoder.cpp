#include "fovea/models/text_encoder.h"

#include <algorithm>

#include "fovea/models/config_rule.h"
#include "fovea/nn/trace.h"

namespace fovea::models {

namespace {
torch::nn::LayerNorm layer_norm(const TextEncoderConfig& config) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({config.dim}).eps(config.epsilon));
}
}  // namespace

void TextEncoderConfig::validate() const {
  const ConfigRule rule("text_encoder");
  rule.expect(vocabulary > 0, "vocabulary", vocabulary, "1 or more");
  rule.expect(dim > 0, "dim", dim, "1 or more");
  rule.expect(heads > 0 && dim % heads == 0, "heads", heads, "a divisor of dim (" + std::to_string(dim) + ")");
  rule.expect(layers >= 0, "layers", layers, "0 or more");
  rule.expect(hidden > 0, "hidden", hidden, "1 or more");
  rule.expect(longest >= 2, "longest", longest, "2 or more");
  rule.expect(segments > 0, "segments", segments, "1 or more");
  rule.expect(epsilon > 0, "epsilon", epsilon, "more than 0");
  rule.expect(dropout >= 0 && dropout < 1, "dropout", dropout, "0 or more, less than 1");
}

TextLayerImpl::TextLayerImpl(const TextEncoderConfig& config) {
  attention = register_module("attention", nn::MultiHeadAttention(nn::MultiHeadAttentionOptions(config.dim, config.heads)
                                                                      .dropout(config.dropout)));
  norm1 = register_module("norm1", layer_norm(config));
  mlp = register_module("mlp", nn::Mlp(nn::MlpOptions(config.dim, config.hidden).dropout(config.dropout)));
  norm2 = register_module("norm2", layer_norm(config));
}

torch::Tensor TextLayerImpl::forward(torch::Tensor x, const torch::Tensor& mask) {
  x = norm1(x + attention(x, /*source=*/torch::Tensor(), mask));
  return nn::traced(this, norm2(mlp->add_to(x, /*norm=*/nullptr)));
}

TextEncoderImpl::TextEncoderImpl(const TextEncoderConfig& config) : config_(config) {
  config.validate();
  word = register_module("word", torch::nn::Embedding(config.vocabulary, config.dim));
  position = register_module("position", torch::nn::Embedding(config.longest, config.dim));
  segment = register_module("segment", torch::nn::Embedding(config.segments, config.dim));
  norm = register_module("norm", layer_norm(config));
  drop_ = register_module("drop", torch::nn::Dropout(config.dropout));
  auto stack = register_module("layer", torch::nn::ModuleList());
  for (int64_t i = 0; i < config.layers; ++i) {
    layers.emplace_back(config);
    stack->push_back(layers.back());
  }
}

torch::Tensor TextEncoderImpl::forward(const torch::Tensor& pieces, const torch::Tensor& mask) {
  if (pieces.dim() != 2 || pieces.scalar_type() != torch::kInt64)
    throw ArgumentError(c10::str("text_encoder: pieces are ", pieces.scalar_type(), " ", pieces.sizes(), ", expected int64 [B,T]"));
  if (mask.scalar_type() != torch::kBool || mask.sizes() != pieces.sizes())
    throw ArgumentError(c10::str("text_encoder: mask is ", mask.scalar_type(), " ", mask.sizes(), ", expected bool ", pieces.sizes()));
  if (pieces.size(1) > config_.longest)
    throw ArgumentError(c10::str("text_encoder: a text has ", pieces.size(1), " pieces, expected at most ", config_.longest,
                                 "; shorten it with WordPieces::encode"));
  if (pieces.numel() > 0) {
    const auto [least, most] = pieces.aminmax();
    if (least.item<int64_t>() < 0 || most.item<int64_t>() >= config_.vocabulary)
      throw ArgumentError(c10::str("text_encoder: pieces lie in ", least.item<int64_t>(), " to ", most.item<int64_t>(),
                                   ", expected 0 to ", config_.vocabulary - 1, ": another vocabulary?"));
  }
  const auto places = position->weight.slice(0, 0, pieces.size(1));
  auto x = drop_(norm(word(pieces) + segment->weight[0] + places));
  for (auto& layer : layers) x = layer(x, mask);
  return nn::traced(this, x);
}

TextBatch pad_texts(const std::vector<std::vector<int64_t>>& texts, int64_t pad) {
  size_t longest = 0;
  for (const auto& text : texts) longest = std::max(longest, text.size());
  TextBatch batch;
  batch.pieces = torch::full({int64_t(texts.size()), int64_t(longest)}, pad, torch::kInt64);
  batch.mask = torch::zeros({int64_t(texts.size()), int64_t(longest)}, torch::kBool);
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto length = int64_t(texts[i].size());
    batch.pieces[i].narrow(0, 0, length).copy_(torch::tensor(texts[i], torch::kInt64));
    batch.mask[i].narrow(0, 0, length).fill_(true);
  }
  return batch;
}

torch::Tensor sentence_vectors(const torch::Tensor& tokens, const torch::Tensor& mask) {
  const auto keep = mask.unsqueeze(2);
  const auto sum = torch::where(keep, tokens, torch::zeros({}, tokens.options())).sum(1);
  const auto mean = sum / keep.sum(1).clamp_min(1);
  return mean / mean.norm(2, 1, /*keepdim=*/true).clamp_min(1e-12);
}

}  // namespace fovea::models
