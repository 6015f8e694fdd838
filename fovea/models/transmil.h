#pragma once
#include "fovea/models/bag_network.h"
#include "fovea/nn/nystrom_attention.h"

namespace fovea::models {

/// Correlated multiple-instance learning: rows see each other before the class token reads them. See TransmilConfig.
/// The square has nothing to do with where tiles lie on a slide unless their order does; rows that fill it up count twice.
/// Cost     O(N*landmarks*width) time, O(N*width) memory, one bag after the other
/// Source   Shao et al. 2021, arXiv:2106.00908
class TransmilImpl : public BagNetworkImpl {
 public:
  explicit TransmilImpl(const TransmilConfig& config);
  /// No scores: the attention is not one softmax over the bag.
  BagAnswer forward(const torch::Tensor& rows, const torch::Tensor& offsets) override;
  /// The class token's row of the last attention, mean over heads: negative weights of the pseudo-inverse count as 0,
  /// the two places of a repeated row are added, the class token's own weight is left out, the rest sums to 1.
  torch::Tensor weights(const torch::Tensor& rows, const torch::Tensor& offsets) override;
  int64_t features() const override { return config_.features; }
  int64_t outputs() const override { return config_.classes; }

 private:
  struct Layer;
  struct Positions;
  torch::Tensor logits_of(const torch::Tensor& bag);

  TransmilConfig config_;
  torch::nn::Sequential first_{nullptr};
  torch::Tensor cls_token_;
  std::shared_ptr<Layer> layer1_, layer2_;
  std::shared_ptr<Positions> positions_;
  torch::nn::LayerNorm norm_{nullptr};
  torch::nn::Linear last_{nullptr};
};

}  // namespace fovea::models
