#include "fovea/models/clam.h"

#include "fovea/models/config_rule.h"
#include "fovea/ops/attention_pool.h"

namespace fovea::models {

void ClamConfig::validate() const {
  const ConfigRule rule("clam");
  rule.expect(features > 0, "features", features, "1 or more");
  rule.expect(width > 0, "width", width, "1 or more");
  rule.expect(hidden > 0, "hidden", hidden, "1 or more");
  rule.expect(classes > 1, "classes", classes, "2 or more");
  rule.expect(dropout >= 0 && dropout < 1, "dropout", dropout, "in [0, 1)");
}

ClamImpl::ClamImpl(const ClamConfig& config) : config_(config) {
  using namespace torch::nn;
  config.validate();
  first_ = Linear(config.features, config.width), drop_ = Dropout(config.dropout);
  attention_ = nn::AttentionScores(nn::AttentionScoresOptions(config.width, config.hidden)
                                       .heads(config.multi_branch ? config.classes : 1)
                                       .gated(config.gated)
                                       .dropout(config.dropout));
  register_module("attention_net", Sequential(first_, ReLU(), drop_, attention_));
  const auto one_a_class = [&](const char* name, int64_t out, std::vector<Linear>& layers) {
    auto list = register_module(name, ModuleList());
    for (int64_t c = 0; c < config.classes; ++c) layers.emplace_back(config.width, out), list->push_back(layers.back());
  };
  if (config.multi_branch)
    one_a_class("classifiers", 1, branches_);
  else
    classifier_ = register_module("classifiers", Linear(config.width, config.classes));
  one_a_class("instance_classifiers", 2, judges_);
}

BagAnswer ClamImpl::forward(const torch::Tensor& rows, const torch::Tensor& offsets) {
  check_bags("clam", rows, offsets);
  const auto h = drop_(torch::relu(first_(rows)));
  BagAnswer answer;
  torch::Tensor z;  // [bags,H,width]
  answer.scores = attention_(h);
  std::tie(z, answer.lse) = ops::attention_pool(answer.scores, h, offsets);
  if (classifier_) {
    answer.logits = classifier_(z.squeeze(1));
  } else {
    std::vector<torch::Tensor> logits;
    for (size_t c = 0; c < branches_.size(); ++c) logits.push_back(branches_[c](z.select(1, int64_t(c))));
    answer.logits = torch::cat(logits, 1);
  }
  if (instances_ || is_training()) {
    std::vector<torch::Tensor> logits;
    for (auto& judge : judges_) logits.push_back(judge(h));
    answer.instance_logits = torch::stack(logits, 1);
  }
  return answer;
}

torch::Tensor ClamImpl::weights(const torch::Tensor& rows, const torch::Tensor& offsets) {
  const torch::NoGradGuard no_grad;
  const auto answer = forward(rows, offsets);
  return bag_weights(answer.scores, answer.lse, offsets);
}

}  // namespace fovea::models
