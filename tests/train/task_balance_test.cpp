#include "fovea/train/task_balance.h"

#include <gtest/gtest.h>

#include <cmath>

namespace fovea::train {
namespace {

torch::Tensor vector_of(std::initializer_list<double> values) { return torch::tensor(std::vector<double>(values), torch::kDouble).requires_grad_(); }

TEST(TaskBalance, ConflictingGradientsLoseWhatPointsAgainstTheOther) {
  const auto w = vector_of({0, 0});
  // Gradients (1, 0) and (-1, 1): each loses its part along the other. By hand: (0.5, 0.5) and (0, 1).
  const auto first = w[0], second = w[1] - w[0];
  projected_loss({first, second}, {w}).backward();
  EXPECT_NEAR(w.grad()[0].item<double>(), 0.5, 1e-12);
  EXPECT_NEAR(w.grad()[1].item<double>(), 1.5, 1e-12);
}

TEST(TaskBalance, GradientsThatAgreeAreAddedAsTheyAre) {
  const auto w = vector_of({0.3, -0.2}), plain = vector_of({0.3, -0.2});
  const auto losses = [](const torch::Tensor& x) { return std::vector{x[0] * 2 + x[1], (x * x).sum() * 0 + x[0] + 3 * x[1]}; };
  auto loss = projected_loss(losses(w), {w});
  const auto sum = losses(plain);
  EXPECT_NEAR(loss.item<double>(), (sum[0] + sum[1]).item<double>(), 1e-12);
  loss.backward();
  (sum[0] + sum[1]).backward();
  EXPECT_TRUE(torch::allclose(w.grad(), plain.grad(), 1e-12, 1e-12));
}

TEST(TaskBalance, ATaskWithoutLabelsInABatchTakesNoPart) {
  const auto w = vector_of({1, 2});
  projected_loss({w.sum(), torch::Tensor()}, {w}).backward();
  EXPECT_EQ(w.grad()[0].item<double>(), 1);
  UncertaintyWeights weights(2);
  weights->forward({torch::tensor(4.0), torch::Tensor()}).backward();
  EXPECT_EQ(weights->log_variance.grad()[1].item<double>(), 0);
}

TEST(TaskBalance, LearnedVarianceSettlesAtTheLoss) {
  // d/ds (exp(-s) L + s) / 2 = 0 at s = log L.
  UncertaintyWeights weights(1);
  for (int i = 0; i < 2000; ++i) {
    weights->zero_grad();
    weights->forward({torch::tensor(5.0)}).backward();
    const torch::NoGradGuard no_grad;
    weights->log_variance -= 0.05 * weights->log_variance.grad();
  }
  EXPECT_NEAR(weights->log_variance.item<double>(), std::log(5.0), 1e-3);
}

TEST(TaskBalance, AgreementIsTheCosineOfBothGradients) {
  const auto w = vector_of({1, 1});
  const auto a = gradient_agreement(w[0] * 3, w.sum(), {w});
  EXPECT_NEAR(a.first_norm, 3, 1e-12);
  EXPECT_NEAR(a.second_norm, std::sqrt(2.0), 1e-12);
  EXPECT_NEAR(a.cosine, std::sqrt(0.5), 1e-12);
}

}  // namespace
}  // namespace fovea::train
