#pragma once
#include <string>
#include <vector>

#include <torch/types.h>

#include "fovea/train/survival_loss.h"

namespace fovea::train {

/// Cox's proportional hazards model with linear risk, by Newton's method: the baseline that stands beside every network
/// that predicts survival.
struct CoxRegression {
  torch::Tensor coefficients;     ///< [P] float64
  torch::Tensor standard_errors;  ///< [P], from the inverse of the information
  double log_likelihood = 0, null_log_likelihood = 0;
  int64_t steps = 0;

  /// Log hazard ratio x . coefficients: [B].
  torch::Tensor risk(const torch::Tensor& x) const;
};

/// x [B,P] float64, any scale (columns are standardised inside). penalty: of squared standardised coefficients, half.
/// Cost    a few steps of O(P^2 B log B)
/// Errors  ArgumentError on shapes, a value that is not finite, no event, or a fit that does not converge (a column that
///         tells events and the censored apart has no finite coefficient: give a penalty)
CoxRegression fit_cox(const torch::Tensor& x, const SurvivalTensors& known, CoxTies ties = CoxTies::kEfron, double penalty = 0);

}  // namespace fovea::train
