#pragma once
#include <torch/types.h>

namespace fovea::train {

/// Multinomial logistic regression with a small penalty, by Newton's method: the baseline that stands beside every network
/// that predicts a class from a table.
struct LogisticRegression {
  torch::Tensor weight, bias;  ///< [K,P], [K] float64
  torch::Tensor logits(const torch::Tensor& x) const;
};

/// Minimises mean cross-entropy + penalty / 2 |weight|^2; x [B,P] float64 (standardised columns), label [B] int64 in
/// [0, classes).
/// Cost    a few steps of O(B K^2 P^2)
/// Errors  ArgumentError on shapes, a value that is not finite, a label out of range, a penalty that is not positive
LogisticRegression fit_logistic(const torch::Tensor& x, const torch::Tensor& label, int64_t classes, double penalty = 1e-3);

}  // namespace fovea::train
