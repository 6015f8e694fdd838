#include "fovea/models/patient_network.h"

#include "fovea/core/error.h"
#include "fovea/models/config_rule.h"
#include "fovea/nn/initialise.h"

namespace fovea::models {

void PatientNetworkConfig::validate() const {
  const ConfigRule rule("patient");
  rule.expect(images >= 0 && images <= 16, "images", images, "0 to 16");
  rule.expect(numbers >= 0, "numbers", numbers, "0 or more");
  rule.expect(measures >= 0, "measures", measures, "0 or more");
  rule.expect(vocabulary >= 0, "vocabulary", vocabulary, "0 or more");
  rule.expect(images + numbers + int64_t(categories.size()) + measures + vocabulary > 0, "images", images,
              "at least one image, number, category, measure or text to learn from");
  for (const int64_t words : categories) rule.expect(words > 0, "categories", categories, "1 word or more in each");
  rule.expect(heads > 0 && width > 0 && width % heads == 0, "width", width, "a multiple of the " + std::to_string(heads) + " heads");
  rule.expect(blocks > 0, "blocks", blocks, "1 or more");
  rule.expect(outputs > 0, "outputs", outputs, "1 or more");
  rule.expect(vocabulary == 0 || text_tokens > 0, "text_tokens", text_tokens, "1 or more");
  rule.expect(text_width >= 0 && (text_width == 0 || vocabulary > 0), "text_width", text_width, "0 or more, and 0 without a vocabulary");
  rule.expect(dropout >= 0 && dropout < 1, "dropout", dropout, "in [0, 1)");
  rule.expect(!segment || (images > 0 && fusion == PatientFusion::kClassToken), "segment", segment, "false without an image and a class token");
  if (images == 0) return;
  rule.expect(image_channels > 0, "image_channels", image_channels, "1 or more");
  rule.expect(image_levels > 0 && image_levels < 8, "image_levels", image_levels, "1 to 7");
  rule.expect(grid.size() == 3, "grid", grid, "three numbers of voxels");
  const int64_t cell = int64_t{1} << image_levels;
  for (const int64_t edge : grid) rule.expect(edge >= 2 * cell && edge % cell == 0, "grid", grid, "multiples of " + std::to_string(cell) + ", at least " + std::to_string(2 * cell));
}

struct PatientNetworkImpl::Tokens {
  std::vector<torch::Tensor> parts;    // [B,n,E] of each modality
  std::vector<torch::Tensor> present;  // [B,n] bool
  std::vector<torch::Tensor> levels;   // of the first image
};

PatientNetworkImpl::PatientNetworkImpl(const PatientNetworkConfig& config) : config_(config) {
  config.validate();
  const int64_t E = config.width;
  const auto parameter = [&](const char* name, at::IntArrayRef shape) {
    auto tensor = register_parameter(name, torch::empty(shape));
    const torch::NoGradGuard no_grad;
    nn::truncated_normal_(tensor);
    return tensor;
  };
  int64_t first = 1;
  const auto add = [&](std::string name, int64_t count) {
    modalities_.push_back({std::move(name), first, count});
    first += count;
  };
  images_ = register_module("image", torch::nn::ModuleList());
  for (int64_t i = 0; i < config.images; ++i) {
    nn::VolumeTokens encoder(nn::VolumeTokensOptions(1, config.image_channels, config.image_levels, E));
    images_->push_back(encoder);
    const auto g = encoder->grid_of({config.grid[0], config.grid[1], config.grid[2]});
    add("image " + std::to_string(i), g[0] * g[1] * g[2]);
  }
  if (config.images > 0) image_position_ = parameter("image_position", {modalities_[0].count, E});
  if (const int64_t features = config.numbers + int64_t(config.categories.size()); features > 0) {
    table_ = register_module("table", nn::FeatureTokens(nn::FeatureTokensOptions(config.numbers, config.categories, E)));
    add("table", features);
  }
  if (config.measures > 0) {
    measures_ = register_module("measures", torch::nn::Linear(config.measures, E));
    add("measures", 1);
  }
  if (config.vocabulary > 0) {
    if (config.text_width > 0) text_in_ = register_module("text_in", torch::nn::Linear(config.text_width, E));
    else words_ = register_module("words", torch::nn::Embedding(config.vocabulary, E));
    text_position_ = parameter("text_position", {config.text_tokens, E});
    add("text", config.text_tokens);
  }
  kind_ = parameter("kind", {int64_t(modalities_.size()), E});
  norm_ = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({E})));
  head_ = register_module("head", torch::nn::Linear(E, config.outputs));
  if (config.fusion == PatientFusion::kConcatenation) {
    // As many weights as the blocks have: 12 E^2 each.
    const int64_t joined = int64_t(modalities_.size()) * E, hidden = std::max<int64_t>(12 * E * E * config.blocks / (joined + E), 1);
    late_ = register_module("late", torch::nn::Linear(joined, hidden));
    late_out_ = register_module("late_out", torch::nn::Linear(hidden, E));
    return;
  }
  class_token_ = parameter("class_token", {E});
  gate_ = register_module("gate", torch::nn::Linear(E, 1));
  torch::nn::init::zeros_(gate_->weight);
  torch::nn::init::constant_(gate_->bias, 2);  // gates begin at 0.88: open, and not yet flat
  blocks_ = register_module("blocks", torch::nn::ModuleList());
  for (int64_t i = 0; i < config.blocks; ++i)
    blocks_->push_back(nn::FusionBlock(nn::MultiHeadAttentionOptions(E, config.heads).dropout(config.dropout), 4 * E));
  if (!config.segment) return;
  decoder_ = register_module("decoder", torch::nn::ModuleList());
  int64_t width = E;
  for (int64_t level = config.image_levels - 1; level >= 0; --level) {
    const int64_t out = config.image_channels << level;
    decoder_->push_back(nn::UnetrUpBlock(width, out, nn::Residual::kYes));
    width = out;
  }
  outline_ = register_module("outline", nn::UnetOutBlock(width, 2));
}

nn::Triple PatientNetworkImpl::token_grid() const {
  const int64_t cell = int64_t{1} << config_.image_levels;
  return {config_.grid[0] / cell, config_.grid[1] / cell, config_.grid[2] / cell};
}

void PatientNetworkImpl::add_image_tokens(const PatientBatch& batch, Tokens& tokens) {
  const auto& x = batch.images;
  if (!x.defined() || x.dim() != 5 || x.size(1) != config_.images || x.sizes().slice(2) != at::IntArrayRef(config_.grid))
    throw ArgumentError(c10::str("patient network: images are ", x.defined() ? x.sizes() : at::IntArrayRef{}, ", expected [B,", config_.images, ",",
                                 config_.grid[0], ",", config_.grid[1], ",", config_.grid[2], "]"));
  const auto& present = batch.images_present;
  if (!present.defined() || present.dim() != 2 || present.size(0) != x.size(0) || present.size(1) != config_.images)
    throw ArgumentError(c10::str("patient network: images_present is ", present.defined() ? present.sizes() : at::IntArrayRef{}, ", expected [", x.size(0), ",", config_.images, "]"));
  for (int64_t i = 0; i < config_.images; ++i) {
    // What is missing may hold anything; zeros keep its tokens finite, and nobody attends to them.
    const auto here = present.select(1, i);
    const auto voxels = torch::where(here.view({-1, 1, 1, 1, 1}), x.slice(1, i, i + 1), torch::zeros({}, x.options()));
    auto grid = images_->ptr<nn::VolumeTokensImpl>(size_t(i))->forward(voxels);
    if (i == 0) tokens.levels = std::move(grid.levels);
    tokens.parts.push_back(grid.tokens + image_position_);
    tokens.present.push_back(here.unsqueeze(1).expand({-1, grid.tokens.size(1)}));
  }
}

PatientAnswer PatientNetworkImpl::forward(const PatientBatch& batch) {
  Tokens tokens;
  if (config_.images > 0) add_image_tokens(batch, tokens);
  if (table_) {
    tokens.parts.push_back(table_(batch.numbers, batch.codes));
    // A feature that is missing has a token that says so; a row of which nothing is known is a missing modality.
    auto known = torch::zeros({tokens.parts.back().size(0)}, torch::kBool);
    if (config_.numbers > 0) known = known | ~batch.numbers.isnan().all(1);
    if (!config_.categories.empty()) known = known | (batch.codes >= 0).any(1);
    tokens.present.push_back(known.unsqueeze(1).expand({-1, table_->features()}));
  }
  if (measures_) {
    if (!batch.measures.defined() || batch.measures.dim() != 2 || batch.measures.size(1) != config_.measures)
      throw ArgumentError(c10::str("patient network: measures are ", batch.measures.defined() ? batch.measures.sizes() : at::IntArrayRef{}, ", expected [B,", config_.measures, "]"));
    tokens.present.push_back(~batch.measures.isnan().all(1, /*keepdim=*/true));
    tokens.parts.push_back(measures_(batch.measures.nan_to_num()).unsqueeze(1));
  }
  if (config_.vocabulary > 0) {
    if (!batch.text.defined() || batch.text.dim() != 2 || batch.text.size(1) != config_.text_tokens)
      throw ArgumentError(c10::str("patient network: text is ", batch.text.defined() ? batch.text.sizes() : at::IntArrayRef{}, ", expected [B,", config_.text_tokens, "]"));
    const auto& vectors = batch.text_vectors;
    if (text_in_ && (!vectors.defined() || vectors.dim() != 3 || vectors.sizes().slice(0, 2) != batch.text.sizes() || vectors.size(2) != config_.text_width))
      throw ArgumentError(c10::str("patient network: text_vectors are ", vectors.defined() ? vectors.sizes() : at::IntArrayRef{}, ", expected [", batch.text.size(0), ",",
                                   config_.text_tokens, ",", config_.text_width, "]"));
    tokens.parts.push_back((text_in_ ? text_in_(torch::where(batch.text.unsqueeze(2) > 0, vectors, torch::zeros({}, vectors.options()))) : words_(batch.text)) + text_position_);
    tokens.present.push_back(batch.text > 0);
  }

  std::vector<torch::Tensor> means, known;  // of each modality: [B,E], [B,1]
  for (size_t m = 0; m < tokens.parts.size(); ++m) {
    tokens.parts[m] = tokens.parts[m] + kind_[int64_t(m)];
    const auto here = tokens.present[m].unsqueeze(2).to(tokens.parts[m].dtype());
    means.push_back((tokens.parts[m] * here).sum(1) / here.sum(1).clamp_min(1));
    known.push_back(tokens.present[m].any(1, true));
  }
  PatientAnswer answer;
  if (config_.fusion == PatientFusion::kConcatenation) {
    answer.gates = torch::cat(known, 1).to(torch::kFloat);
    answer.outcome = head_(norm_(late_out_(torch::gelu(late_(torch::cat(means, 1))))));
    return answer;
  }

  const int64_t B = means[0].size(0);
  std::vector<torch::Tensor> gates, open{torch::zeros({B, 1})};
  for (size_t m = 0; m < means.size(); ++m) {
    gates.push_back(torch::sigmoid(gate_(means[m])) * known[m]);
    open.push_back(torch::log_sigmoid(gate_(means[m])).expand({-1, tokens.parts[m].size(1)}));
  }
  answer.gates = torch::cat(gates, 1);
  auto key_mask = torch::cat({torch::ones({B, 1}, torch::kBool), torch::cat(tokens.present, 1)}, 1);
  auto x = torch::cat({class_token_.expand({B, 1, -1}), torch::cat(tokens.parts, 1)}, 1);
  const auto bias = torch::cat(open, 1).view({B, 1, 1, -1});
  for (const auto& block : *blocks_) x = block->as<nn::FusionBlock>()->forward(x, key_mask, bias);
  answer.outcome = head_(norm_(x.select(1, 0)));
  if (decoder_) answer.segmentation = outline(tokens, x);
  return answer;
}

torch::Tensor PatientNetworkImpl::outline(const Tokens& tokens, const torch::Tensor& sequence) {
  const auto grid = token_grid();
  auto x = sequence.narrow(1, modalities_[0].first, modalities_[0].count).transpose(1, 2).reshape({sequence.size(0), config_.width, grid[0], grid[1], grid[2]});
  size_t level = tokens.levels.size() - 1;
  for (const auto& up : *decoder_) x = up->as<nn::UnetrUpBlock>()->forward(x, tokens.levels[--level]);
  return outline_(x);
}

void PatientNetworkImpl::set_capture(bool on) {
  if (!blocks_) return;
  for (const auto& block : *blocks_) block->as<nn::FusionBlock>()->attn->set_capture(on);
}

torch::Tensor PatientNetworkImpl::class_rows() const {
  if (!blocks_) throw ArgumentError("patient network: a network that concatenates has no attention rows");
  std::vector<torch::Tensor> rows;
  for (const auto& block : *blocks_) rows.push_back(block->as<nn::FusionBlock>()->attn->rows(torch::zeros({1}, torch::kLong)).select(2, 0));
  return torch::stack(rows);
}

std::vector<torch::Tensor> PatientNetworkImpl::shared_attention_weights() const {
  std::vector<torch::Tensor> weights;
  if (!blocks_) return weights;
  for (const auto& block : *blocks_)
    for (const auto& item : block->as<nn::FusionBlock>()->attn->named_parameters())
      if (item.value().dim() == 2) weights.push_back(item.value());
  return weights;
}

}  // namespace fovea::models
