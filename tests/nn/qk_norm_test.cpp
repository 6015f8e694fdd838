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

TEST(QkNorm, L2GivesCosinesTimesALearnedFactorThatBeginsAtTheLogOfThePairs) {
  QkNorm norm(QkNormOptions(8).kind(QkNormKind::kL2).tokens(50).epsilon(0));
  norm->to(torch::kFloat64);
  const auto q = normal({2, 5, 8}, 8) * 7, k = normal({2, 6, 8}, 9) * 0.1;
  const auto [nq, nk] = norm(q, k);
  const auto cosine = torch::matmul(q / q.norm(2, -1, true), (k / k.norm(2, -1, true)).transpose(-1, -2));
  EXPECT_LT(largest(norm->scale() * torch::matmul(nq, nk.transpose(-1, -2)) - std::log2(50.0 * 49) * cosine), 1e-5);
  EXPECT_EQ(norm->named_parameters().keys(), std::vector<std::string>{"g"});
  EXPECT_LT(largest(norm->implicit_temperature(q, k) - q.norm(2, -1, true) * k.norm(2, -1, true).transpose(-1, -2)), 1e-13);
  nq.sum().backward();
  EXPECT_GT(largest(norm->parameters()[0].grad()), 0);
  EXPECT_THROW(QkNorm(QkNormOptions(8).kind(QkNormKind::kL2)), c10::Error) << "without the number of tokens";
}

TEST(QkNorm, JointHeadsAreNormalisedAsOneVectorOfTheWholeWidth) {
  const auto q = normal({2, 3, 5, 4}, 10), k = normal({2, 3, 7, 4}, 11);
  QkNorm joint(QkNormOptions(4).joint_heads(3).epsilon(0)), single(QkNormOptions(4));
  joint->to(torch::kFloat64);
  const auto [nq, nk] = joint(q, k);
  const auto wide = k.transpose(1, 2).flatten(2);  // [2,7,12]
  const auto expected = torch::layer_norm(wide, {12}, {}, {}, 0.0);
  EXPECT_EQ(nk.sizes(), k.sizes());
  EXPECT_LT(largest(nk.transpose(1, 2).flatten(2) - expected), 1e-13);
  EXPECT_EQ(joint->parameters()[0].numel(), 12);
  EXPECT_EQ(joint->implicit_temperature(q, k).sizes(), (std::vector<int64_t>{2, 1, 5, 7}));
  EXPECT_THROW(joint(q.narrow(1, 0, 2), k), c10::Error);
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
