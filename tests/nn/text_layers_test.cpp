// The layers that join a text and an image: what Python's parity tests (tests/python/fusion) do not ask.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "fovea/core/error.h"
#include "fovea/nn/finding_attention.h"
#include "fovea/nn/gated_cross_attention.h"
#include "fovea/nn/gated_fusion.h"
#include "fovea/nn/word_region_attention.h"

namespace fovea::nn {
namespace {

using testing::HasSubstr;

template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const ArgumentError& e) {
    return e.what();
  }
  return "accepted";
}

torch::Tensor draw(at::IntArrayRef shape, uint64_t seed) {
  return torch::randn(shape, at::detail::createCPUGenerator(seed), torch::kFloat64);
}

TEST(GatedFusion, WithoutAModalityIsTheOtherAndTheGateSaysSo) {
  torch::manual_seed(0);
  GatedFusion layer(GatedFusionOptions(3, 4, 5).bias(true));
  layer->to(torch::kFloat64);
  auto v = draw({4, 3}, 1), t = draw({4, 4}, 2);
  v[1].fill_(NAN), t[2].fill_(NAN), v[3].fill_(NAN), t[3].fill_(INFINITY);  // what is missing may be anything
  v.requires_grad_(), t.requires_grad_();
  const auto has_image = torch::tensor({true, false, true, false}), has_text = torch::tensor({true, true, false, false});
  const Fused fused = layer(v, t, has_image, has_text);
  EXPECT_TRUE(fused.gate[0].gt(0).logical_and(fused.gate[0].lt(1)).all().item<bool>());
  EXPECT_TRUE(torch::equal(fused.gate[1], torch::zeros({5}, torch::kFloat64)));
  EXPECT_TRUE(torch::equal(fused.gate[2], torch::ones({5}, torch::kFloat64)));
  EXPECT_TRUE(torch::equal(fused.vector[3], torch::zeros({5}, torch::kFloat64)));
  EXPECT_LT((fused.vector[1] - torch::tanh(layer->text(t[1]))).abs().max().item<double>(), 1e-15);
  EXPECT_LT((fused.vector[2] - torch::tanh(layer->image(v[2]))).abs().max().item<double>(), 1e-15);
  fused.vector.sum().backward();
  EXPECT_EQ(v.grad()[1].abs().sum().item<double>(), 0);
  EXPECT_EQ(t.grad()[2].abs().sum().item<double>(), 0);
  for (const auto& p : layer->parameters()) EXPECT_TRUE(p.grad().isfinite().all().item<bool>());
}

TEST(FindingAttention, EqualsTheCompositionAndSaysWhatSpeaksForNothing) {
  torch::manual_seed(0);
  FindingAttention layer(FindingAttentionOptions(6).source_dim(5));
  layer->to(torch::kFloat64);
  auto x = draw({2, 3, 6}, 1), source = draw({2, 4, 5}, 2);
  const auto mask = torch::tensor({{true, false, true, true}, {true, true, true, true}});
  const auto scores = torch::matmul(layer->q_proj(x), layer->k_proj(source).transpose(1, 2)) / std::sqrt(6.0);
  const Finding found = layer(x, source, mask);
  // The first case without its second region.
  const auto three = torch::tensor({0, 2, 3});
  const auto s = scores[0].index_select(1, three);
  EXPECT_LT((found.weights[0].index_select(1, three) - s.softmax(1)).abs().max().item<double>(), 1e-14);
  EXPECT_EQ(found.weights[0].select(1, 1).abs().max().item<double>(), 0);
  const auto odds = s.exp().mean(1).log() - layer->nothing(x[0]).squeeze(1);
  EXPECT_LT((found.found[0] - odds).abs().max().item<double>(), 1e-13);
  const auto vector = layer->out_proj(torch::matmul(scores[1].softmax(1), layer->v_proj(source[1])));
  EXPECT_LT((found.vector[1] - vector).abs().max().item<double>(), 1e-14);
  EXPECT_LT((layer(x, source).vector[1] - vector).abs().max().item<double>(), 1e-14);
}

TEST(FindingAttention, FindsNothingWhereEveryRegionIsMaskedWhateverTheyHold) {
  FindingAttention layer(FindingAttentionOptions(4));
  auto x = torch::randn({2, 3, 4}).requires_grad_(), source = torch::randn({2, 5, 4});
  source[0].fill_(1e30);
  source.requires_grad_();
  auto mask = torch::ones({2, 5}, torch::kBool);
  mask[0].fill_(false);
  const Finding found = layer(x, source, mask);
  EXPECT_EQ(found.weights[0].abs().sum().item<double>(), 0);
  EXPECT_TRUE(found.found[0].eq(-INFINITY).all().item<bool>());
  EXPECT_TRUE(found.vector.isfinite().all().item<bool>());
  (found.vector.sum() + found.found[1].sum()).backward();
  EXPECT_TRUE(x.grad().isfinite().all().item<bool>() && source.grad().isfinite().all().item<bool>());
  EXPECT_THAT(refusal([&] { layer(x, torch::zeros({2, 5, 3})); }), HasSubstr("expected [B,Q,4] and [B,N,4]"));
}

TEST(GatedFusion, RefusesOtherShapesInOneLine) {
  GatedFusion layer(GatedFusionOptions(3, 4, 5));
  EXPECT_THAT(refusal([&] { layer(torch::zeros({2, 4}), torch::zeros({2, 4})); }), HasSubstr("the image's vector is [2, 4], expected [2,3]"));
  EXPECT_THAT(refusal([&] { layer(torch::zeros({2, 3}), torch::zeros({1, 4})); }), HasSubstr("the text's vector is [1, 4], expected [2,4]"));
  EXPECT_THAT(refusal([&] { layer(torch::zeros({2, 3}), torch::zeros({2, 4}), torch::ones({2})); }), HasSubstr("has_image is Float [2], expected bool [2]"));
  EXPECT_THAT(refusal([] { GatedFusion(GatedFusionOptions(3, 4, 5).gates(2)); }), HasSubstr("gates is 2, expected 1 or dim (5)"));
  EXPECT_EQ(layer(torch::zeros({0, 3}), torch::zeros({0, 4})).vector.size(0), 0);
}

TEST(GatedCrossAttention, ReturnsItsInputBitForBitUntilItsGatesOpen) {
  torch::manual_seed(0);
  GatedCrossAttention layer(GatedCrossAttentionOptions(8, 2).media_dim(6));
  const auto x = torch::randn({2, 5, 8}), media = torch::randn({2, 7, 6});
  EXPECT_TRUE(torch::equal(layer(x, media), x));
  layer(x, media).sum().backward();
  EXPECT_GT(layer->attn_gate.grad().abs().item<double>(), 0) << "closed, but it can learn to open";
  {
    torch::NoGradGuard no_grad;
    layer->attn_gate.fill_(0.5);
  }
  EXPECT_FALSE(torch::equal(layer(x, media), x));
  // An image that is masked whole says nothing.
  EXPECT_TRUE(torch::equal(layer(x, media, torch::zeros({2, 7}, torch::kBool)), x));
}

TEST(WordRegions, SharpnessBoundsWhatBothSoftmaxesCanPickOutAndNotWhatOneCan) {
  // One region fits the one word of a text a hundred times better than the others.
  const auto word = torch::zeros({1, 1, 4}, torch::kFloat64);
  word[0][0][0] = 10;
  auto regions = torch::zeros({1, 50, 4}, torch::kFloat64);
  regions.select(2, 1).fill_(1);
  regions[0][7][0] = 10;
  const auto mask = torch::ones({1, 1}, torch::kBool);
  // The only word has all the weight in every region: nothing is picked out.
  EXPECT_NEAR(word_regions(word, mask, regions).weights[0][0][0][7].item<double>(), 0.02, 1e-12);
  EXPECT_GT(word_regions(word, mask, regions, {}, {.single_softmax = true}).weights[0][0][0][7].item<double>(), 1 - 1e-12);
}

TEST(WordRegions, RefuseATextWithoutWordsAndAnImageWithoutRegions) {
  const auto words = torch::zeros({2, 3, 4}), regions = torch::zeros({1, 5, 4});
  const auto all = torch::ones({2, 3}, torch::kBool);
  auto none = all.clone();
  none[1].fill_(false);
  EXPECT_THAT(refusal([&] { word_regions(words, none, regions); }), HasSubstr("a case has no words"));
  EXPECT_THAT(refusal([&] { word_regions(words, all, regions, torch::zeros({1, 5}, torch::kBool)); }), HasSubstr("a case has no regions"));
  EXPECT_THAT(refusal([&] { word_regions(words, all, torch::zeros({1, 5, 6})); }), HasSubstr("of one width"));
}

}  // namespace
}  // namespace fovea::nn
