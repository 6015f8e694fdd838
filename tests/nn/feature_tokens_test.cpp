#include "fovea/nn/feature_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/train/message_of.h"

namespace fovea::nn {
namespace {
using testing::HasSubstr;

const double kNaN = std::nan("");

FeatureTokens three_numbers_two_categories() {
  torch::manual_seed(1);
  FeatureTokens tokens(FeatureTokensOptions(3, {2, 4}, 8));
  tokens->to(torch::kFloat64);
  return tokens;
}

TEST(FeatureTokens, NumberIsBiasPlusValueTimesWeightAndCategoryIsBiasPlusItsRow) {
  auto layer = three_numbers_two_categories();
  const auto numbers = torch::tensor({{0.5, -2.0, 0.0}}, torch::kFloat64);
  const auto codes = torch::tensor({{1, 3}}, torch::kInt64);
  const auto out = layer(numbers, codes);
  ASSERT_EQ(out.sizes(), (std::vector<int64_t>{1, 5, 8}));
  for (int64_t j = 0; j < 3; ++j)
    EXPECT_TRUE(torch::allclose(out[0][j], layer->number_bias[j] + numbers[0][j] * layer->number_weight[j], 0, 1e-15));
  EXPECT_TRUE(torch::allclose(out[0][3], layer->category_bias[0] + layer->category_weight[1], 0, 1e-15));
  EXPECT_TRUE(torch::allclose(out[0][4], layer->category_bias[1] + layer->category_weight[2 + 3], 0, 1e-15));
}

TEST(FeatureTokens, NamesAreTheTokensOfZerosLessTheCategoriesRows) {
  auto layer = three_numbers_two_categories();
  const auto out = layer(torch::zeros({1, 3}, torch::kFloat64), torch::zeros({1, 2}, torch::kInt64))[0];
  const auto names = layer->names();
  ASSERT_EQ(names.sizes(), (std::vector<int64_t>{5, 8}));
  EXPECT_TRUE(names.slice(0, 0, 3).equal(out.slice(0, 0, 3)));
  EXPECT_TRUE(torch::allclose(names[4], out[4] - layer->category_weight[2], 0, 1e-15));
  EXPECT_EQ(FeatureTokens(FeatureTokensOptions(2, {}, 4))->names().sizes(), (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(FeatureTokens(FeatureTokensOptions(0, {3}, 4))->names().sizes(), (std::vector<int64_t>{1, 4}));
}

TEST(FeatureTokens, MissingValueIsTheLearnedTokenOfItsFeatureAndOnlyThatOneLearns) {
  auto layer = three_numbers_two_categories();
  const auto numbers = torch::tensor({{kNaN, 1.0, 2.0}, {3.0, 4.0, kNaN}}, torch::kFloat64).requires_grad_();
  const auto codes = torch::tensor({{0, -1}, {1, 2}}, torch::kInt64);
  const auto out = layer(numbers, codes);
  EXPECT_TRUE(out[0][0].equal(layer->missing[0]));
  EXPECT_TRUE(out[1][2].equal(layer->missing[2]));
  EXPECT_TRUE(out[0][4].equal(layer->missing[4]));
  EXPECT_TRUE(torch::isfinite(out).all().item<bool>());
  out.square().sum().backward();
  for (const auto& p : layer->named_parameters())
    EXPECT_TRUE(torch::isfinite(p.value().grad()).all().item<bool>()) << p.key();
  EXPECT_EQ(numbers.grad()[0][0].item<double>(), 0);
  EXPECT_NE(numbers.grad()[0][1].item<double>(), 0);
  const auto learns = layer->missing.grad().abs().sum(1) > 0;
  EXPECT_TRUE(learns.equal(torch::tensor({true, false, true, false, true})));
}

TEST(FeatureTokens, WeightsBeginUniformWithinOneOverRootWidth) {
  torch::manual_seed(2);
  FeatureTokens layer(FeatureTokensOptions(40, {50}, 64));
  for (const auto& p : layer->named_parameters()) {
    EXPECT_LE(p.value().abs().max().item<double>(), 0.125) << p.key();
    if (p.value().size(0) >= 40) {
      EXPECT_NEAR(p.value().std().item<double>(), 0.125 / std::sqrt(3.0), 0.005) << p.key();
    }
  }
}

TEST(FeatureTokens, NumbersAloneOrCategoriesAloneAreEnoughAndAnEmptyBatchIsEmpty) {
  FeatureTokens numbers(FeatureTokensOptions(2, {}, 4)), categories(FeatureTokensOptions(0, {3}, 4));
  EXPECT_EQ(numbers(torch::zeros({5, 2})).sizes(), (std::vector<int64_t>{5, 2, 4}));
  EXPECT_EQ(categories(torch::Tensor(), torch::zeros({5, 1}, torch::kInt64)).sizes(), (std::vector<int64_t>{5, 1, 4}));
  EXPECT_EQ(numbers(torch::zeros({0, 2})).sizes(), (std::vector<int64_t>{0, 2, 4}));
}

TEST(FeatureTokens, BadTablesAreRefusedWithOneLine) {
  auto layer = three_numbers_two_categories();
  const auto numbers = torch::zeros({2, 3}, torch::kFloat64);
  const auto codes = torch::tensor({{0, 0}, {1, 4}}, torch::kInt64);
  EXPECT_EQ(message_of([&] { layer(numbers, codes); }),
            "feature_tokens: code 4 of categorical feature 1 in row 1 is no value of it, expected 0 to 3, or -1 where it "
            "is missing");
  EXPECT_THAT(message_of([&] { layer(numbers, codes.clamp(-2, 1) - 2); }), HasSubstr("code -2 of categorical feature 0"));
  EXPECT_THAT(message_of([&] { layer(numbers + INFINITY, codes.clamp_max(1)); }),
              HasSubstr("number 0 of row 0 is infinite"));
  EXPECT_THAT(message_of([&] { layer(numbers.slice(1, 1), codes); }), HasSubstr("expected floating [B,3]"));
  EXPECT_THAT(message_of([&] { layer(numbers, torch::Tensor()); }), HasSubstr("codes is absent, expected int64 [B,2]"));
  EXPECT_THAT(message_of([&] { layer(numbers.slice(0, 1), codes.clamp_max(1)); }), HasSubstr("the same patients"));
  EXPECT_THAT(message_of([] { FeatureTokens(FeatureTokensOptions(0, {}, 4)); }), HasSubstr("at least one feature"));
  EXPECT_THAT(message_of([] { FeatureTokens(FeatureTokensOptions(0, {2, 0}, 4)); }), HasSubstr("feature 1 has 0 values"));
}

}  // namespace
}  // namespace fovea::nn
