#pragma once
#include "fovea/models/bag_network.h"
#include "fovea/nn/attention_scores.h"

namespace fovea::models {

/// Clustering-constrained attention: see ClamConfig. The instance classifiers do not touch the logits; they shape h
/// through train::clam_instance_loss.
/// Cost     O(N*features*width) time, O(N*width) memory
/// Source   Lu et al. 2021, arXiv:2004.09666
class ClamImpl : public BagNetworkImpl {
 public:
  explicit ClamImpl(const ClamConfig& config);
  /// Instance logits are there while training, or always after set_instances(true).
  BagAnswer forward(const torch::Tensor& rows, const torch::Tensor& offsets) override;
  torch::Tensor weights(const torch::Tensor& rows, const torch::Tensor& offsets) override;
  int64_t features() const override { return config_.features; }
  int64_t outputs() const override { return config_.classes; }
  void set_instances(bool on) { instances_ = on; }

 private:
  ClamConfig config_;
  bool instances_ = false;
  torch::nn::Linear first_{nullptr}, classifier_{nullptr};
  torch::nn::Dropout drop_{nullptr};
  nn::AttentionScores attention_{nullptr};
  std::vector<torch::nn::Linear> branches_, judges_;  // one a class
};

}  // namespace fovea::models
