#include "fovea/nn/nystrom_attention.h"

#include <gtest/gtest.h>

#include "fovea/nn/attention_scores.h"

namespace fovea::nn {
namespace {

TEST(NystromAttention, PseudoInverseOfAWellConditionedMatrixIsItsInverse) {
  torch::manual_seed(0);
  const auto a = (torch::randn({2, 3, 8, 8}, torch::kFloat64) * 0.3 + 4 * torch::eye(8, torch::kFloat64)).softmax(-1);
  const auto z = iterated_pseudo_inverse(a, 12);
  EXPECT_LT((torch::matmul(a, z) - torch::eye(8, torch::kFloat64)).abs().max().item<double>(), 1e-9);
}

TEST(NystromAttention, AsManyLandmarksAsTokensIsExactAttention) {
  torch::manual_seed(1);
  NystromAttention layer(NystromAttentionOptions(8, 2).landmarks(10).iterations(20));
  layer->to(torch::kFloat64);
  const torch::NoGradGuard no_grad;
  const auto weights = layer->named_parameters();
  torch::Tensor(weights["res_conv.weight"]).zero_();
  const auto x = torch::randn({1, 10, 8}, torch::kFloat64);
  const auto qkv = torch::matmul(x, weights["to_qkv.weight"].t()).view({1, 10, 3, 2, 4});
  const auto part = [&](int64_t i) { return qkv.select(2, i).transpose(1, 2); };
  const auto rows = (torch::matmul(part(0), part(1).transpose(2, 3)) / 2).softmax(-1);
  const auto expected = torch::linear(torch::matmul(rows, part(2)).transpose(1, 2).flatten(2), weights["to_out.0.weight"], weights["to_out.0.bias"]);
  layer->set_capture(true);
  EXPECT_LT((layer(x) - expected).abs().max().item<double>(), 1e-6);
  EXPECT_LT((layer->row(3) - rows.select(2, 3)).abs().max().item<double>(), 1e-6);
}

TEST(NystromAttention, RefusesHeadsThatDoNotDivideTheWidthAndOtherWidths) {
  EXPECT_THROW(NystromAttention(NystromAttentionOptions(8, 3)), std::exception);
  NystromAttention layer(NystromAttentionOptions(8, 2).landmarks(4));
  EXPECT_THROW(layer(torch::zeros({1, 5, 6})), std::exception);
  EXPECT_THROW(layer(torch::zeros({1, 0, 8})), std::exception);
}

TEST(AttentionScores, DropoutActsOnlyWhileTraining) {
  for (const bool gated : {false, true}) {
    AttentionScores scores(AttentionScoresOptions(6, 16).heads(2).gated(gated).dropout(0.5));
    const auto x = torch::randn({5, 6});
    scores->train();
    EXPECT_FALSE(torch::equal(scores(x), scores(x)));
    scores->eval();
    EXPECT_TRUE(torch::equal(scores(x), scores(x)));
    EXPECT_EQ(scores(x).sizes(), at::IntArrayRef({5, 2}));
  }
}

}  // namespace
}  // namespace fovea::nn
