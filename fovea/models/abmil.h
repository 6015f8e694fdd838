#pragma once
#include "fovea/models/bag_network.h"
#include "fovea/nn/attention_scores.h"

namespace fovea::models {

/// Attention-based pooling of a bag, and its baselines: see AbmilConfig.
/// Digits   conv 20 of 5x5, ReLU, pool 2, conv 50 of 5x5, ReLU, pool 2, then embed
/// Cost     O(N*features*width) time, O(N*width) memory
/// Source   Ilse, Tomczak and Welling 2018, arXiv:1802.04712; MNIST network of appendix, table 7
class AbmilImpl : public BagNetworkImpl {
 public:
  explicit AbmilImpl(const AbmilConfig& config);
  BagAnswer forward(const torch::Tensor& rows, const torch::Tensor& offsets) override;
  torch::Tensor weights(const torch::Tensor& rows, const torch::Tensor& offsets) override;
  int64_t features() const override { return config_.features; }
  int64_t outputs() const override { return config_.outputs; }

 private:
  torch::Tensor embedded(const torch::Tensor& rows);

  AbmilConfig config_;
  torch::nn::Sequential convolutions_{nullptr}, embed_{nullptr};
  nn::AttentionScores attention_{nullptr};
  torch::nn::Linear classifier_{nullptr};
};

}  // namespace fovea::models
