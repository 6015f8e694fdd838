#include "fovea/models/transmil.h"

#include <cmath>

#include "fovea/models/config_rule.h"

namespace fovea::models {

namespace {
torch::nn::LayerNorm layer_norm(int64_t width) { return torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})); }

int64_t side_of_square(int64_t rows) {
  int64_t side = int64_t(std::sqrt(double(rows)));
  while (side * side < rows) ++side;
  return side;
}
}  // namespace

void TransmilConfig::validate() const {
  const ConfigRule rule("transmil");
  rule.expect(features > 0, "features", features, "1 or more");
  rule.expect(heads > 0 && width > 0 && width % heads == 0, "width", width, "a multiple of the " + std::to_string(heads) + " heads");
  rule.expect(landmarks > 0, "landmarks", landmarks, "1 or more");
  rule.expect(classes > 1, "classes", classes, "2 or more");
  rule.expect(dropout >= 0 && dropout < 1, "dropout", dropout, "in [0, 1)");
}

struct TransmilImpl::Layer : torch::nn::Module {
  explicit Layer(const TransmilConfig& c) {
    norm = register_module("norm", layer_norm(c.width));
    attn = register_module("attn", nn::NystromAttention(nn::NystromAttentionOptions(c.width, c.heads).landmarks(c.landmarks).dropout(c.dropout)));
  }
  torch::Tensor forward(const torch::Tensor& x) { return x + attn(norm(x)); }
  torch::nn::LayerNorm norm{nullptr};
  nn::NystromAttention attn{nullptr};
};

/// PPEG: x + conv7(x) + conv5(x) + conv3(x) on the square, channel by channel; the class token passes by.
struct TransmilImpl::Positions : torch::nn::Module {
  explicit Positions(int64_t width) {
    const auto layer = [&](const char* name, int64_t edge) {
      return register_module(name, torch::nn::Conv2d(torch::nn::Conv2dOptions(width, width, edge).padding(edge / 2).groups(width)));
    };
    seven = layer("proj", 7), five = layer("proj1", 5), three = layer("proj2", 3);
  }
  torch::Tensor forward(const torch::Tensor& x, int64_t side) {
    const auto square = x.slice(1, 1).transpose(1, 2).unflatten(2, {side, side});
    const auto placed = seven(square) + square + five(square) + three(square);
    return torch::cat({x.slice(1, 0, 1), placed.flatten(2).transpose(1, 2)}, 1);
  }
  torch::nn::Conv2d seven{nullptr}, five{nullptr}, three{nullptr};
};

TransmilImpl::TransmilImpl(const TransmilConfig& config) : config_(config) {
  config.validate();
  positions_ = register_module("pos_layer", std::make_shared<Positions>(config.width));
  first_ = register_module("_fc1", torch::nn::Sequential(torch::nn::Linear(config.features, config.width), torch::nn::ReLU()));
  cls_token_ = register_parameter("cls_token", torch::randn({1, 1, config.width}));
  layer1_ = register_module("layer1", std::make_shared<Layer>(config));
  layer2_ = register_module("layer2", std::make_shared<Layer>(config));
  norm_ = register_module("norm", layer_norm(config.width));
  last_ = register_module("_fc2", torch::nn::Linear(config.width, config.classes));
}

torch::Tensor TransmilImpl::logits_of(const torch::Tensor& bag) {
  const int64_t side = side_of_square(bag.size(0)), repeated = side * side - bag.size(0);
  const auto h = first_->forward(bag).unsqueeze(0);
  const auto tokens = torch::cat({cls_token_, h, h.slice(1, 0, repeated)}, 1);
  const auto x = layer2_->forward(positions_->forward(layer1_->forward(tokens), side));
  return last_(norm_(x.select(1, 0)));
}

BagAnswer TransmilImpl::forward(const torch::Tensor& rows, const torch::Tensor& offsets) {
  check_bags("transmil", rows, offsets);
  std::vector<torch::Tensor> logits;
  for (const auto& bag : rows.split_with_sizes(at::IntArrayRef(offsets.diff().contiguous().data_ptr<int64_t>(), size_t(offsets.size(0) - 1))))
    logits.push_back(logits_of(bag));
  BagAnswer answer;
  answer.logits = torch::cat(logits);
  return answer;
}

torch::Tensor TransmilImpl::weights(const torch::Tensor& rows, const torch::Tensor& offsets) {
  const torch::NoGradGuard no_grad;
  check_bags("transmil", rows, offsets);
  const auto lengths = offsets.diff().contiguous();
  std::vector<torch::Tensor> weights;
  for (const auto& bag : rows.split_with_sizes(at::IntArrayRef(lengths.data_ptr<int64_t>(), size_t(lengths.size(0))))) {
    layer2_->attn->set_capture(true);
    logits_of(bag);
    const auto row = layer2_->attn->row(0)[0].mean(0).slice(0, 1).clamp_min(0);  // [side * side]
    layer2_->attn->set_capture(false);
    const int64_t n = bag.size(0), repeated = row.size(0) - n;
    auto folded = row.slice(0, 0, n).clone();
    folded.slice(0, 0, repeated) += row.slice(0, n);
    const auto sum = folded.sum();
    weights.push_back(sum.item<double>() > 0 ? folded / sum : torch::full_like(folded, 1.0 / double(n)));
  }
  return torch::cat(weights).unsqueeze(1);
}

}  // namespace fovea::models
