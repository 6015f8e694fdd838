#include "fovea/nn/multi_head_attention.h"

#include <gtest/gtest.h>

#include <cmath>

#include "fovea/nn/rotary.h"

namespace fovea::nn {
namespace {

double largest(const torch::Tensor& t) { return t.abs().max().item<double>(); }

torch::Tensor tokens(int64_t b, int64_t n, int64_t width, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return torch::randn({b, n, width}, generator, torch::kFloat64);
}

/// The layer written out with every score in memory. keep: bool broadcastable to [B,H,N,M].
torch::Tensor composition(MultiHeadAttentionImpl& layer, int64_t heads, int64_t key_heads, const torch::Tensor& x,
                          const torch::Tensor& source, const torch::Tensor& keep, const torch::Tensor& added = {}) {
  const auto split = [](const torch::Tensor& t, int64_t n) { return t.unflatten(-1, {n, -1}).transpose(1, 2); };
  auto q = split(layer.q_proj(x), heads), k = split(layer.k_proj(source), key_heads);
  if (layer.qk_norm) std::tie(q, k) = layer.qk_norm(q, k);
  const int64_t group = heads / key_heads;
  const auto v = split(layer.v_proj(source), key_heads).repeat_interleave(group, 1);
  auto scores = layer.scale() * torch::matmul(q, k.repeat_interleave(group, 1).transpose(-1, -2));
  if (added.defined()) scores = scores + added;
  if (keep.defined()) scores = scores.masked_fill(~keep, -std::numeric_limits<double>::infinity());
  return layer.out_proj(torch::matmul(scores.softmax(-1), v).transpose(1, 2).flatten(2));
}

TEST(MultiHeadAttention, SelfAttentionEqualsTheCompositionForwardAndBackward) {
  torch::manual_seed(1);
  MultiHeadAttention layer(MultiHeadAttentionOptions(12, 3));
  layer->to(torch::kFloat64);
  const auto x = tokens(2, 7, 12, 1), upstream = tokens(2, 7, 12, 2);
  const auto ours = layer->forward(x);
  const auto grads = torch::autograd::grad({(ours * upstream).sum()}, layer->parameters());
  const auto expected = composition(*layer, 3, 3, x, x, {});
  const auto expected_grads = torch::autograd::grad({(expected * upstream).sum()}, layer->parameters());
  EXPECT_LT(largest(ours - expected), 1e-12);
  for (size_t i = 0; i < grads.size(); ++i) EXPECT_LT(largest(grads[i] - expected_grads[i]), 1e-11) << i;
}

TEST(MultiHeadAttention, CrossLengthsGroupedHeadsMaskWindowBiasAndSlopesEqualTheComposition) {
  torch::manual_seed(2);
  MultiHeadAttention layer(MultiHeadAttentionOptions(12, 4)
                               .key_value_heads(2)
                               .source_dim(5)
                               .window_left(3)
                               .window_right(1)
                               .alibi(true)
                               .qk_norm(QkNormKind::kRms));
  layer->to(torch::kFloat64);
  const auto x = tokens(2, 6, 12, 3), source = tokens(2, 8, 5, 4), bias = tokens(4, 6, 8, 5);
  auto mask = torch::ones({2, 8}, torch::kBool);
  mask.index_put_({1, 4}, false);
  const auto behind = torch::arange(8).unsqueeze(0) - torch::arange(6).unsqueeze(1) - 2;
  const auto keep = ((behind >= -3) & (behind <= 1)).unsqueeze(0).unsqueeze(0) & mask.view({2, 1, 1, 8});
  const auto slopes = torch::tensor(alibi_slopes(4), torch::kFloat64).view({4, 1, 1});
  const auto expected = composition(*layer, 4, 2, x, source, keep, bias - slopes * behind.abs());
  EXPECT_LT(largest(layer->forward(x, source, mask, bias) - expected), 1e-12);
}

TEST(MultiHeadAttention, AttentionDropoutActsInTrainingOnlyAndFollowsTheGenerator) {
  MultiHeadAttention layer(MultiHeadAttentionOptions(8, 2).attention_dropout(0.5));
  const auto x = tokens(1, 9, 8, 6).to(torch::kFloat32);
  const auto with_seed = [&](uint64_t seed) {
    torch::manual_seed(seed);
    return layer->forward(x);
  };
  EXPECT_TRUE(with_seed(1).equal(with_seed(1)));
  EXPECT_FALSE(with_seed(1).equal(with_seed(2)));
  layer->eval();
  EXPECT_TRUE(with_seed(1).equal(with_seed(2)));
}

TEST(MultiHeadAttention, CapturedRowsTimesValuesAreTheResult) {
  MultiHeadAttention layer(MultiHeadAttentionOptions(8, 2).causal(true).softcap(2));
  layer->to(torch::kFloat64);
  const auto x = tokens(1, 5, 8, 7);
  EXPECT_THROW(layer->rows(torch::arange(5)), c10::Error);
  layer->set_capture(true);
  const auto out = layer->forward(x);
  const auto v = layer->v_proj(x).unflatten(-1, {2, 4}).transpose(1, 2);
  const auto rebuilt = layer->out_proj(torch::matmul(layer->rows(torch::arange(5)), v).transpose(1, 2).flatten(2));
  EXPECT_LT(largest(out - rebuilt), 1e-12);
  EXPECT_EQ(layer->queries_and_keys().first.sizes(), (std::vector<int64_t>{1, 2, 5, 4}));
  layer->set_capture(false);
  EXPECT_THROW(layer->queries_and_keys(), c10::Error);
}

TEST(MultiHeadAttention, PositionsAreAppliedOnTheChosenSideOfTheNorm) {
  const auto shift = [](const torch::Tensor& q, const torch::Tensor& k) { return std::pair(q + 1, k * 2); };
  const auto make = [&](QkNormOrder order) {
    torch::manual_seed(3);
    MultiHeadAttention layer(
        MultiHeadAttentionOptions(8, 2).qk_norm(QkNormKind::kL2).qk_norm_tokens(5).position(shift).qk_norm_order(order));
    layer->to(torch::kFloat64);
    layer->set_capture(true);
    layer->forward(tokens(1, 5, 8, 8));
    return layer->queries_and_keys();
  };
  const auto before = make(QkNormOrder::kBeforePosition), after = make(QkNormOrder::kAfterPosition);
  EXPECT_NEAR(before.second.norm(2, -1).mean().item<double>(), 2, 1e-3);
  EXPECT_NEAR(after.second.norm(2, -1).mean().item<double>(), 1, 1e-3);
  EXPECT_GT(largest(before.first - after.first), 0.1);
}

TEST(MultiHeadAttention, RotaryPositionsKeepLengthsSoThatWithoutGainsTheOrderOfTheNormIsOpen) {
  const auto coordinates = grid_coordinates({2, 2, 3}).to(torch::kFloat64);
  const auto make = [&](QkNormKind kind, QkNormOrder order) {
    torch::manual_seed(4);
    MultiHeadAttention layer(MultiHeadAttentionOptions(24, 2)
                                 .qk_norm(kind)
                                 .qk_norm_affine(false)
                                 .qk_norm_order(order)
                                 .position([=](const torch::Tensor& q, const torch::Tensor& k) {
                                   Rotary rotary(RotaryOptions(12).base(100));
                                   return std::pair(rotary(q, coordinates), rotary(k, coordinates));
                                 }));
    layer->to(torch::kFloat64);
    return layer->forward(tokens(1, 12, 24, 9));
  };
  const auto gap = [&](QkNormKind kind) {
    return largest(make(kind, QkNormOrder::kBeforePosition) - make(kind, QkNormOrder::kAfterPosition));
  };
  EXPECT_LT(gap(QkNormKind::kRms), 1e-12);
  EXPECT_GT(gap(QkNormKind::kLayerNorm), 1e-4) << "a rotation does not keep the mean";
}

TEST(MultiHeadAttention, ScaleIsThatOfTheNorm) {
  EXPECT_EQ(MultiHeadAttention(MultiHeadAttentionOptions(32, 2))->scale(), 0.25);
  EXPECT_EQ(MultiHeadAttention(MultiHeadAttentionOptions(32, 2).qk_norm(QkNormKind::kL2).qk_norm_tokens(9))->scale(), 1);
  EXPECT_EQ(MultiHeadAttention(MultiHeadAttentionOptions(32, 2).scale(0.5))->scale(), 0.5);
  const auto parameters = [](bool affine) {
    return MultiHeadAttention(MultiHeadAttentionOptions(32, 2).qk_norm(QkNormKind::kLayerNorm).qk_norm_affine(affine))
        ->parameters()
        .size();
  };
  EXPECT_EQ(parameters(true), parameters(false) + 4) << "gains and shifts";
}

TEST(MultiHeadAttention, AMaskedSampleGivesTheBiasOfTheOutput) {
  MultiHeadAttention layer(MultiHeadAttentionOptions(8, 2));
  const auto x = torch::randn({2, 3, 8});
  auto mask = torch::ones({2, 3}, torch::kBool);
  mask.index_put_({0}, false);
  const auto out = layer->forward(x, {}, mask);
  EXPECT_LT(largest(out[0] - layer->out_proj->bias), 1e-7);
  EXPECT_TRUE(out.isfinite().all().item<bool>());
}

TEST(MultiHeadAttention, RefusesHeadsThatDoNotDivide) {
  EXPECT_THROW(MultiHeadAttention(MultiHeadAttentionOptions(10, 3)), c10::Error);
  EXPECT_THROW(MultiHeadAttention(MultiHeadAttentionOptions(12, 4).key_value_heads(3)), c10::Error);
  EXPECT_THROW(MultiHeadAttention(MultiHeadAttentionOptions(12, 4).key_value_heads(2).qk_norm(QkNormKind::kRms).qk_norm_whole_width(true)),
               c10::Error);
}

TEST(AlibiSlopes, AreThePowersOfThePaperAndInterleaveForOtherNumbers) {
  EXPECT_EQ(alibi_slopes(8), (std::vector<double>{0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625}));
  const auto three = alibi_slopes(3);  // of two heads 2^-4, 2^-8; then the first of four, 2^-2
  EXPECT_EQ(three, (std::vector<double>{0.0625, 0.00390625, 0.25}));
}

}  // namespace
}  // namespace fovea::nn
