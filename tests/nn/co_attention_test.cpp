#include "fovea/nn/co_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/message_of.h"

namespace fovea::nn {
namespace {
using testing::HasSubstr;

torch::Tensor tokens(int64_t b, int64_t n, int64_t width, uint64_t seed) {
  return torch::randn({b, n, width}, at::detail::createCPUGenerator(seed), torch::kFloat64);
}

// bool [2,n]: the first sample's last `missing` tokens take no part.
torch::Tensor mask(int64_t n, int64_t missing) {
  auto m = torch::ones({2, n}, torch::kBool);
  m[0].slice(0, n - missing).fill_(false);
  return m;
}

ParallelCoAttention parallel() {
  torch::manual_seed(1);
  ParallelCoAttention layer(6, 5);
  layer->to(torch::kFloat64);
  return layer;
}

CoAttention two_way() {
  torch::manual_seed(2);
  CoAttention layer(CoAttentionOptions(8, 2).other_dim(6).hidden(16));
  layer->to(torch::kFloat64);
  return layer;
}

TEST(ParallelCoAttention, VectorsAreTheTokensMeansByTheWeightsAndWeightsAreRowsOfOne) {
  auto layer = parallel();
  const auto image = tokens(2, 7, 6, 1), table = tokens(2, 4, 6, 2);
  const auto read = layer(image, table, mask(7, 3), mask(4, 1));
  EXPECT_TRUE(torch::allclose(read.image, torch::einsum("bn,bne->be", {read.image_weights, image}), 0, 1e-13));
  EXPECT_TRUE(torch::allclose(read.table, torch::einsum("bn,bne->be", {read.table_weights, table}), 0, 1e-13));
  EXPECT_TRUE(torch::allclose(read.image_weights.sum(1), torch::ones({2}, torch::kFloat64), 0, 1e-13));
  EXPECT_EQ(read.image_weights[0].slice(0, 4).abs().max().item<double>(), 0);
}

TEST(ParallelCoAttention, MaskedTokensAreAsIfTheyWereNotThere) {
  auto layer = parallel();
  const auto image = tokens(2, 7, 6, 1), table = tokens(2, 4, 6, 2);
  const auto masked = layer(image, table, mask(7, 3), mask(4, 1));
  const auto cut = layer(image.slice(0, 0, 1).slice(1, 0, 4), table.slice(0, 0, 1).slice(1, 0, 3));
  EXPECT_TRUE(torch::allclose(masked.image[0], cut.image[0], 0, 1e-13));
  EXPECT_TRUE(torch::allclose(masked.table[0], cut.table[0], 0, 1e-13));
}

TEST(ParallelCoAttention, SideWithoutAnyTokenReadsZeroWithFiniteGradients) {
  auto layer = parallel();
  const auto image = tokens(2, 7, 6, 1).requires_grad_(), table = tokens(2, 4, 6, 2).requires_grad_();
  const auto read = layer(image, table, mask(7, 7), torch::Tensor());
  EXPECT_EQ(read.image[0].abs().max().item<double>(), 0);
  EXPECT_EQ(read.image_weights[0].abs().max().item<double>(), 0);
  (read.image.sum() + read.table.square().sum()).backward();
  EXPECT_EQ(image.grad()[0].abs().max().item<double>(), 0);
  EXPECT_TRUE(torch::isfinite(table.grad()).all().item<bool>());
  for (const auto& p : layer->named_parameters())
    EXPECT_TRUE(torch::isfinite(p.value().grad()).all().item<bool>()) << p.key();
}

TEST(CoAttention, BothSidesAskTheOthersTokensAsTheyWereBefore) {
  auto layer = two_way();
  const auto a = tokens(2, 5, 8, 3), b = tokens(2, 3, 6, 4);
  const auto [first, second] = layer(a, b);
  EXPECT_TRUE(first.equal(layer->first(a, b)));
  EXPECT_TRUE(second.equal(layer->second(b, a)));
}

TEST(CoAttention, RowsOfTheSecondSideFollowWhatItAsksWithAndNotItsTokens) {
  auto layer = two_way();
  layer->second->attn->set_capture(true);
  const auto a = tokens(2, 5, 8, 3), asking = tokens(1, 3, 6, 6)[0];
  const auto rows_of = [&](const torch::Tensor& b, const torch::Tensor& with) {
    layer(a, b, torch::Tensor(), torch::Tensor(), torch::Tensor(), with);
    return layer->second->attn->rows(torch::tensor({0, 1, 2})).clone();
  };
  const auto rows = rows_of(tokens(2, 3, 6, 4), asking);
  EXPECT_TRUE(rows.equal(rows_of(tokens(2, 3, 6, 5), asking)));
  EXPECT_TRUE(rows.equal(rows_of(asking.expand({2, 3, 6}), torch::Tensor())));
  EXPECT_FALSE(rows.equal(rows_of(tokens(2, 3, 6, 4), torch::Tensor())));
}

TEST(CoAttention, MissingSideChangesNothingWhateverItsTokensHold) {
  auto layer = two_way();
  const auto a = tokens(2, 5, 8, 3);
  const auto [first, second] = layer(a, tokens(2, 3, 6, 4), torch::Tensor(), mask(3, 3));
  const auto [again, other] = layer(a, tokens(2, 3, 6, 5), torch::Tensor(), mask(3, 3));
  EXPECT_TRUE(first[0].equal(again[0]));
  EXPECT_FALSE(first[1].equal(again[1]));
  EXPECT_TRUE(torch::isfinite(first).all().item<bool>());
  // What is left of the attention is its output bias.
  auto block = layer->first;
  const auto y = block->norm1(a + block->attn->out_proj->bias);
  EXPECT_TRUE(torch::allclose(first[0], block->norm2(y + block->mlp(y))[0], 0, 1e-13));
}

TEST(CoAttention, CapturedRowsAreExactSoftmaxRowsOverTheTokensThatTakePart) {
  auto layer = two_way();
  layer->second->attn->set_capture(true);
  const auto a = tokens(2, 5, 8, 3), b = tokens(2, 3, 6, 4);
  layer(a, b, mask(5, 2), torch::Tensor());
  const auto rows = layer->second->attn->rows(torch::tensor({0, 2}));
  ASSERT_EQ(rows.sizes(), (std::vector<int64_t>{2, 2, 2, 5}));
  EXPECT_TRUE(torch::allclose(rows.sum(-1), torch::ones({2, 2, 2}, torch::kFloat64), 0, 1e-13));
  EXPECT_EQ(rows[0].slice(2, 3).abs().max().item<double>(), 0);
}

TEST(CoAttention, TokensOrMasksThatDoNotFitAreRefusedWithOneLine) {
  auto layer = two_way();
  auto lu = parallel();
  EXPECT_EQ(message_of([&] { layer(tokens(2, 5, 7, 1), tokens(2, 3, 6, 2)); }),
            "co_attention: first is [2, 5, 7], expected [B,tokens,8]");
  EXPECT_THAT(message_of([&] { layer(tokens(2, 5, 8, 1), tokens(2, 3, 6, 2), mask(4, 0)); }),
              HasSubstr("first_mask is bool [2, 4], expected bool [2, 5]"));
  EXPECT_THAT(message_of([&] { lu(tokens(2, 5, 6, 1), tokens(2, 3, 8, 2)); }), HasSubstr("table is [2, 3, 8]"));
}

}  // namespace
}  // namespace fovea::nn
