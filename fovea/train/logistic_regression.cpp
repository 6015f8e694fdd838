#include "fovea/train/logistic_regression.h"

#include <torch/torch.h>

#include "fovea/core/error.h"

namespace fovea::train {

torch::Tensor LogisticRegression::logits(const torch::Tensor& x) const { return torch::matmul(x, weight.t()) + bias; }

LogisticRegression fit_logistic(const torch::Tensor& x, const torch::Tensor& label, int64_t classes, double penalty) {
  if (x.dim() != 2 || label.dim() != 1 || label.size(0) != x.size(0) || x.size(0) == 0)
    throw ArgumentError(c10::str("fit_logistic: x is ", x.sizes(), " and label ", label.sizes(), ", expected [B,P] and [B]"));
  if (!x.isfinite().all().item<bool>()) throw ArgumentError("fit_logistic: a value is not finite");
  if (classes < 2 || label.min().item<int64_t>() < 0 || label.max().item<int64_t>() >= classes)
    throw ArgumentError(c10::str("fit_logistic: a label is outside of 0 to ", classes - 1));
  if (!(penalty > 0)) throw ArgumentError("fit_logistic: the penalty must be positive, or classes that x tells apart have no finite weights");
  const torch::NoGradGuard no_grad;
  const int64_t B = x.size(0), P = x.size(1) + 1;
  const auto features = torch::cat({x.to(torch::kDouble), torch::ones({B, 1}, torch::kDouble)}, 1);
  const auto truth = torch::one_hot(label, classes).to(torch::kDouble);
  auto shrink = torch::full({classes, P}, penalty, torch::kDouble);
  shrink.select(1, P - 1).fill_(1e-9);  // the bias is free; the classes' common part of it must still be pinned
  auto theta = torch::zeros({classes, P}, torch::kDouble);
  constexpr int kSteps = 50;
  for (int step = 0; step < kSteps; ++step) {
    const auto p = torch::matmul(features, theta.t()).softmax(1);
    const auto gradient = torch::matmul((p - truth).t(), features) / B + shrink * theta;
    // H[a,b] = sum_i p_ia (delta_ab - p_ib) f_i f_i^T / B
    auto hessian = torch::diag_embed((shrink + 1e-12).flatten());
    auto blocks = hessian.view({classes, P, classes, P});
    for (int64_t a = 0; a < classes; ++a)
      for (int64_t b = 0; b < classes; ++b) {
        const auto weight = p.select(1, a) * ((a == b ? 1.0 : 0.0) - p.select(1, b));
        blocks.select(2, b).select(0, a).add_(torch::matmul(features.t(), features * weight.unsqueeze(1)) / B);
      }
    const auto change = torch::linalg_solve(hessian, gradient.flatten()).view_as(theta);
    theta = theta - change;
    if (change.abs().max().item<double>() < 1e-9) break;
  }
  return {theta.slice(1, 0, P - 1).clone(), theta.select(1, P - 1).clone()};
}

}  // namespace fovea::train
