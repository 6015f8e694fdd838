#pragma once
#include <torch/torch.h>

namespace fovea::nn {

/// Which of the 2x2x2 neighbours make up the merged token, and in which order. The choice belongs to the weights.
enum class MergingOrder {
  kAxisSum,   ///< "merging" of MONAI 1.6: each octant once, by the number of odd axes
  kAll,       ///< "mergingv2": each octant once, Z slowest
  kRepeated,  ///< "merging" of MONAI 0.9 to 1.5: (0,1,0) and (0,0,1) twice, (1,0,1) and (0,1,1) never; for weights trained so
};

struct PatchMergingOptions {
  explicit PatchMergingOptions(int64_t dim) : dim_(dim) {}
  TORCH_ARG(int64_t, dim);
  TORCH_ARG(MergingOrder, order) = MergingOrder::kAll;
};

/// Halves the token grid: the eight tokens of each 2x2x2 cell are concatenated, normalised and projected to twice the width.
/// Shapes   x [B,Z,Y,X,E] -> [B,ceil(Z/2),ceil(Y/2),ceil(X/2),2E]; odd axes are padded with a zero at the far end
/// Names    norm.weight, norm.bias [8E]; reduction.weight [2E,8E]
/// Source   Liu et al. 2021 (Swin), arXiv:2103.14030, section 3.1
class PatchMergingImpl : public torch::nn::Module {
 public:
  explicit PatchMergingImpl(const PatchMergingOptions& options);
  torch::Tensor forward(torch::Tensor x);

  torch::nn::Linear reduction{nullptr};
  torch::nn::LayerNorm norm{nullptr};

 private:
  MergingOrder order_;
};
TORCH_MODULE(PatchMerging);

}  // namespace fovea::nn
