#pragma once
#include <torch/types.h>

namespace fovea::train {

/// How single rows are judged.
enum class InstanceLoss {
  kCrossEntropy,
  kSmoothSvm,  ///< log sum_j exp(x_j + [j is not the target]) - x_target: Berrada et al. 2018 with k = 1, tau = 1
};

struct ClamInstanceOptions {
  int64_t rows = 8;         ///< of the highest and of the lowest attention
  bool subtyping = false;   ///< classes exclude each other: a row that another class's attention likes is evidence against
  InstanceLoss loss = InstanceLoss::kCrossEntropy;
};

/// CLAM's clustering of rows, mean over bags. In the class of a bag's label the rows of highest attention shall be judged
/// 1 and those of lowest attention 0; with subtyping, in every other class the rows of highest attention 0, and the sum
/// over classes is divided by their number.
/// Shapes   scores [N,H], H = 1 or classes; instance_logits [N,classes,2]; offsets [bags+1]; labels int64 [bags]
/// Meaning  a bag of fewer rows than asked for gives all it has to both ends
/// Gradient instance_logits; which rows are chosen has none
/// Errors   ArgumentError: shapes, a label that is no class
/// Source   Lu et al. 2021, arXiv:2004.09666, methods, "instance-level clustering"
torch::Tensor clam_instance_loss(const torch::Tensor& scores, const torch::Tensor& instance_logits, const torch::Tensor& offsets,
                                 const torch::Tensor& labels, const ClamInstanceOptions& options = {});

}  // namespace fovea::train
