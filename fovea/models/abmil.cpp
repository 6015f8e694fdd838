#include "fovea/models/abmil.h"

#include "fovea/models/config_rule.h"
#include "fovea/ops/attention_pool.h"

namespace fovea::models {

namespace {
constexpr int64_t kDigitFeatures = 50 * 4 * 4;  // what two convolutions and poolings leave of 28 x 28 pixels
}

void AbmilConfig::validate() const {
  const ConfigRule rule("abmil");
  rule.expect(features >= 0, "features", features, "0 (digits) or the numbers of a row");
  for (const int64_t width : embed) rule.expect(width > 0, "embed", embed, "widths of 1 or more");
  rule.expect(hidden > 0, "hidden", hidden, "1 or more");
  rule.expect(outputs > 0, "outputs", outputs, "1 or more");
  rule.expect(dropout >= 0 && dropout < 1, "dropout", dropout, "in [0, 1)");
}

AbmilImpl::AbmilImpl(const AbmilConfig& config) : config_(config) {
  using namespace torch::nn;
  config.validate();
  int64_t width = config.features;
  if (width == 0) {
    convolutions_ = register_module("feature_extractor_part1", Sequential(Conv2d(1, 20, 5), ReLU(), MaxPool2d(2), Conv2d(20, 50, 5), ReLU(), MaxPool2d(2)));
    width = kDigitFeatures;
  }
  embed_ = Sequential();
  for (const int64_t next : config.embed) {
    embed_->push_back(Linear(width, next)), embed_->push_back(ReLU());
    if (config.dropout > 0) embed_->push_back(Dropout(config.dropout));
    width = next;
  }
  register_module("feature_extractor_part2", embed_);
  const bool gated = config.pooling == BagPooling::kGated;
  if (gated || config.pooling == BagPooling::kAttention) {
    // The authors name the layers of the two forms differently: they are registered here one by one.
    attention_ = nn::AttentionScores(nn::AttentionScoresOptions(width, config.hidden).gated(gated));
    if (gated) {
      register_module("attention_V", Sequential(attention_->value, Tanh()));
      register_module("attention_U", Sequential(attention_->gate, Sigmoid()));
      register_module("attention_weights", attention_->score);
    } else {
      register_module("attention", Sequential(attention_->value, Tanh(), attention_->score));
    }
  }
  classifier_ = Linear(width, config.outputs);
  register_module("classifier", Sequential(classifier_));
}

torch::Tensor AbmilImpl::embedded(const torch::Tensor& rows) {
  auto x = convolutions_ ? convolutions_->forward(rows).flatten(1) : rows;
  return embed_->is_empty() ? x : embed_->forward(x);
}

BagAnswer AbmilImpl::forward(const torch::Tensor& rows, const torch::Tensor& offsets) {
  check_bags("abmil", rows, offsets);
  const auto h = embedded(rows);
  BagAnswer answer;
  torch::Tensor z;
  if (attention_) {
    answer.scores = attention_(h);
    std::tie(z, answer.lse) = ops::attention_pool(answer.scores, h, offsets);
    z = z.squeeze(1);
  } else {
    z = torch::segment_reduce(h, config_.pooling == BagPooling::kMax ? "max" : "mean", offsets.diff());
  }
  answer.logits = classifier_(z);
  return answer;
}

torch::Tensor AbmilImpl::weights(const torch::Tensor& rows, const torch::Tensor& offsets) {
  const torch::NoGradGuard no_grad;
  check_bags("abmil", rows, offsets);
  const auto h = embedded(rows), lengths = offsets.diff();
  if (attention_) {
    const auto scores = attention_(h);
    return bag_weights(scores, std::get<1>(ops::attention_pool(scores, h, offsets)), offsets);
  }
  if (config_.pooling == BagPooling::kMean) return (1 / lengths.to(h.dtype())).repeat_interleave(lengths).unsqueeze(1);
  // The share of channels whose maximum a row holds; rows that tie share a channel.
  const auto holds = (h == torch::segment_reduce(h, "max", lengths).repeat_interleave(lengths, 0)).to(h.dtype());
  return (holds / torch::segment_reduce(holds, "sum", lengths).repeat_interleave(lengths, 0)).mean(1, /*keepdim=*/true);
}

}  // namespace fovea::models
