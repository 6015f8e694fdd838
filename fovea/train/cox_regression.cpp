#include "fovea/train/cox_regression.h"

#include <torch/torch.h>

#include "fovea/core/error.h"

namespace fovea::train {
using torch::Tensor;

Tensor CoxRegression::risk(const Tensor& x) const { return x.to(torch::kDouble).matmul(coefficients); }

CoxRegression fit_cox(const Tensor& x_in, const SurvivalTensors& known, CoxTies ties, double penalty) {
  if (x_in.dim() != 2 || x_in.size(1) == 0) throw ArgumentError(c10::str("fit_cox: x has shape ", x_in.sizes(), ", expected [B,P], P >= 1"));
  const auto x = x_in.to(torch::kDouble);
  if (!x.isfinite().all().item<bool>()) throw ArgumentError("fit_cox: x has values that are not finite; fill or leave out missing ones");
  if (!known.event.any().item<bool>()) throw ArgumentError("fit_cox: nobody had the event");
  const auto mean = x.mean(0), deviation = x.std(0, /*unbiased=*/false).clamp_min(1e-300);
  const auto z = (x - mean) / deviation;
  const int64_t P = z.size(1);
  const auto objective = [&](const Tensor& b) { return cox_loss(z.matmul(b), known, ties) + penalty / 2 * b.square().sum(); };

  constexpr int kSteps = 50, kHalvings = 30;
  constexpr double kConverged = 1e-12;
  CoxRegression fit;
  auto b = torch::zeros({P}, torch::kDouble);
  Tensor information;
  fit.null_log_likelihood = -cox_loss(z.matmul(b), known, ties).item<double>();
  bool converged = false;
  while (!converged && fit.steps < kSteps) {
    ++fit.steps;
    const auto at = b.detach().requires_grad_();
    const auto value = objective(at);
    const auto gradient = torch::autograd::grad({value}, {at}, {}, /*retain_graph=*/true, /*create_graph=*/true)[0];
    std::vector<Tensor> rows;
    for (int64_t p = 0; p < P; ++p) rows.push_back(torch::autograd::grad({gradient[p]}, {at}, {}, /*retain_graph=*/true)[0]);
    information = torch::stack(rows);
    const auto [step, info] = at::linalg_solve_ex(information, gradient.detach());
    if (info.item<int>() != 0) throw ArgumentError("fit_cox: the columns of x depend on each other; leave one out or give a penalty");
    double length = 1;
    Tensor next;
    for (int halving = 0; halving < kHalvings; ++halving, length /= 2) {
      next = b - length * step;
      if (objective(next).item<double>() <= value.item<double>() * (1 + 1e-15)) break;
    }
    converged = (next - b).abs().max().item<double>() < kConverged * (1 + b.abs().max().item<double>());
    b = next;
  }
  if (!converged || b.abs().max().item<double>() > 1e3)
    throw ArgumentError("fit_cox: no finite coefficients after " + std::to_string(fit.steps) + " steps; a column may separate the events: give a penalty");
  fit.log_likelihood = -cox_loss(z.matmul(b), known, ties).item<double>();
  fit.coefficients = b / deviation;
  fit.standard_errors = torch::linalg_inv(information).diagonal().sqrt() / deviation;
  return fit;
}

}  // namespace fovea::train
