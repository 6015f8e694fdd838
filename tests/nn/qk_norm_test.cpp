#include "fovea/nn/qk_norm.h"

#include <gtest/gtest.h>

#include <cmath>

namespace fovea::nn {
namespace {

torch::Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return torch::randn(shape, generator, torch::kFloat64);
}

double largest(const torch::Tensor& t) { return t.abs().max().item<double>(); }

TEST(QkNorm, ScoresAreCorrelationsTimesTheRootOfTheChannels) {
  QkNorm norm(QkNormOptions(16).affine(false).epsilon(0));
  const auto q = normal({2, 3, 5, 16}, 1) * 4 + 1, k = normal({2, 3, 7, 16}, 2) * 0.1;
  const auto [nq, nk] = norm(q, k);
  const auto cq = q - q.mean(-1, true), ck = k - k.mean(-1, true);
  const auto correlation = torch::matmul(cq / cq.norm(2, -1, true), (ck / ck.norm(2, -1, true)).transpose(-1, -2));
  EXPECT_LT(largest(torch::matmul(nq, nk.transpose(-1, -2)) / 4 - 4 * correlation), 1e-13);
}

TEST(QkNorm, ImplicitTemperatureIsTheProductOfTheFeaturesDeviations) {
  QkNorm norm(QkNormOptions(64).affine(false));
  const auto q = normal({1, 4, 64}, 3) * 3 + 2, k = normal({1, 6, 64}, 4) * 0.2;
  const auto [nq, nk] = norm(q, k);
  const auto centred = torch::matmul(q - q.mean(-1, true), (k - k.mean(-1, true)).transpose(-1, -2));
  const auto temperature = norm->implicit_temperature(q, k);
  EXPECT_EQ(temperature.sizes(), (std::vector<int64_t>{1, 4, 6}));
  EXPECT_LT(largest(torch::matmul(nq, nk.transpose(-1, -2)) - centred / temperature), 1e-12);
}

TEST(QkNorm, RmsKeepsTheMeanAndDividesByTheRootMeanSquare) {
  QkNorm norm(QkNormOptions(8).kind(QkNormKind::kRms).affine(false).epsilon(0));
  const auto q = normal({3, 8}, 5) + 1;
  const auto [nq, nk] = norm(q, 2 * q);
  EXPECT_LT(largest(nq - q / q.square().mean(-1, true).sqrt()), 1e-14);
  EXPECT_LT(largest(nq - nk), 1e-14);
}

TEST(QkNorm, GainsAndShiftsAreLearnedUnderTimmsNames) {
  QkNorm layer_norm(QkNormOptions(4));
  std::vector<std::string> names;
  for (const auto& p : layer_norm->named_parameters()) names.push_back(p.key());
  EXPECT_EQ(names, (std::vector<std::string>{"q_norm.weight", "q_norm.bias", "k_norm.weight", "k_norm.bias"}));
  EXPECT_EQ(QkNorm(QkNormOptions(4).kind(QkNormKind::kRms))->named_parameters().size(), 2u);
  layer_norm->to(torch::kFloat64);
  auto q = normal({5, 4}, 6).requires_grad_(), k = normal({5, 4}, 7).requires_grad_();
  const auto [nq, nk] = layer_norm(q, k);
  (nq * nk).sum().backward();
  for (const auto& p : layer_norm->parameters()) EXPECT_GT(largest(p.grad()), 0);
  EXPECT_GT(largest(q.grad()), 0);
}

TEST(QkNorm, AConstantVectorGivesZeroNotNan) {
  QkNorm norm(QkNormOptions(6).affine(false));
  const auto constant = torch::full({2, 6}, 5.0, torch::kFloat64);
  EXPECT_EQ(largest(norm(constant, constant).first), 0);
}

TEST(QkNorm, RefusesAnotherWidth) {
  QkNorm norm(QkNormOptions(6));
  EXPECT_THROW(norm(torch::zeros({2, 5}), torch::zeros({2, 6})), c10::Error);
  EXPECT_THROW(QkNorm(QkNormOptions(0)), c10::Error);
}

}  // namespace
}  // namespace fovea::nn
