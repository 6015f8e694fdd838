#include "fovea/train/instance_loss.h"

#include <torch/torch.h>

#include "fovea/core/error.h"

namespace fovea::train {

namespace {
torch::Tensor judged(const torch::Tensor& logits, const torch::Tensor& target, InstanceLoss loss) {
  if (loss == InstanceLoss::kCrossEntropy) return torch::nn::functional::cross_entropy(logits, target);
  const auto others = 1 - torch::one_hot(target, logits.size(1));
  return ((logits + others).logsumexp(1) - logits.gather(1, target.unsqueeze(1)).squeeze(1)).mean();
}
}  // namespace

torch::Tensor clam_instance_loss(const torch::Tensor& scores, const torch::Tensor& instance_logits, const torch::Tensor& offsets,
                                 const torch::Tensor& labels, const ClamInstanceOptions& options) {
  const int64_t bags = labels.numel(), classes = instance_logits.dim() == 3 ? instance_logits.size(1) : 0;
  if (scores.dim() != 2 || instance_logits.dim() != 3 || instance_logits.size(0) != scores.size(0) || instance_logits.size(2) != 2 ||
      (scores.size(1) != 1 && scores.size(1) != classes) || offsets.numel() != bags + 1)
    throw ArgumentError(c10::str("clam instance loss: scores ", scores.sizes(), ", instance logits ", instance_logits.sizes(), ", ", offsets.numel(),
                                 " offsets, ", bags, " labels, expected [N,1 or classes], [N,classes,2], bags + 1, bags"));
  auto sum = torch::zeros({}, instance_logits.options());
  for (int64_t b = 0; b < bags; ++b) {
    const int64_t first = offsets[b].item<int64_t>(), n = offsets[b + 1].item<int64_t>() - first, label = labels[b].item<int64_t>();
    if (label < 0 || label >= classes) throw ArgumentError(c10::str("clam instance loss: label ", label, " of bag ", b, ", expected 0 to ", classes - 1));
    const int64_t k = std::min(options.rows, n);
    auto of_bag = torch::zeros({}, instance_logits.options());
    for (int64_t c = 0; c < classes; ++c) {
      if (c != label && !options.subtyping) continue;
      const auto s = scores.narrow(0, first, n).select(1, scores.size(1) == 1 ? 0 : c).detach();
      const auto logits = instance_logits.narrow(0, first, n).select(1, c);
      const auto take = [&](bool highest) { return logits.index_select(0, std::get<1>(s.topk(k, 0, highest))); };
      const auto all = [&](int64_t value) { return torch::full({k}, value, torch::kInt64); };
      of_bag = of_bag + (c == label ? judged(torch::cat({take(true), take(false)}), torch::cat({all(1), all(0)}), options.loss)
                                    : judged(take(true), all(0), options.loss));
    }
    sum = sum + (options.subtyping ? of_bag / classes : of_bag);
  }
  return sum / std::max<int64_t>(bags, 1);
}

}  // namespace fovea::train
