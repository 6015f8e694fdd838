#include "fovea/train/contrastive_loss.h"

#include "fovea/core/error.h"

namespace fovea::train {

torch::Tensor contrastive_loss(const torch::Tensor& scores, double sharpness) {
  if (scores.dim() != 2 || scores.size(0) != scores.size(1) || scores.size(0) == 0)
    throw ArgumentError(c10::str("contrastive_loss: scores are ", scores.sizes(), ", expected [B,B]: as many texts as images"));
  const auto own = [&](int64_t dim) { return (sharpness * scores).log_softmax(dim).diagonal().mean(); };
  return -(own(1) + own(0));
}

}  // namespace fovea::train
