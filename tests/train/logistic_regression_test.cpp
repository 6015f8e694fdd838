#include "fovea/train/logistic_regression.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "fovea/core/error.h"

namespace fovea::train {
namespace {

TEST(LogisticRegression, TheGradientIsZeroWhereItStops) {
  torch::manual_seed(1);
  const auto x = torch::randn({200, 4}, torch::kDouble);
  const auto label = torch::randint(0, 3, {200}, torch::kLong);
  const auto fit = fit_logistic(x, label, 3, 1e-2);
  auto weight = fit.weight.clone().requires_grad_(), bias = fit.bias.clone().requires_grad_();
  const auto loss = torch::nn::functional::cross_entropy(torch::matmul(x, weight.t()) + bias, label) + 1e-2 / 2 * weight.square().sum();
  loss.backward();
  EXPECT_LT(weight.grad().abs().max().item<double>(), 1e-8);
  EXPECT_LT(bias.grad().abs().max().item<double>(), 1e-8);
}

TEST(LogisticRegression, ClassesThatXTellsApartHaveFiniteWeights) {
  const auto x = torch::linspace(-1, 1, 40, torch::kDouble).unsqueeze(1);
  const auto label = (x.squeeze(1) > 0).to(torch::kLong);
  const auto fit = fit_logistic(x, label, 2, 1e-4);
  EXPECT_TRUE(fit.weight.isfinite().all().item<bool>());
  EXPECT_TRUE(fit.logits(x).argmax(1).equal(label));
}

TEST(LogisticRegression, RefusesWhatHasNoAnswer) {
  const auto x = torch::zeros({4, 2}, torch::kDouble);
  const auto label = torch::zeros({4}, torch::kLong);
  EXPECT_THROW(fit_logistic(x, label, 1), ArgumentError);
  EXPECT_THROW(fit_logistic(x, label + 5, 2), ArgumentError);
  EXPECT_THROW(fit_logistic(x, label, 2, 0), ArgumentError);
  EXPECT_THROW(fit_logistic(x / 0, label, 2), ArgumentError);
}

}  // namespace
}  // namespace fovea::train
