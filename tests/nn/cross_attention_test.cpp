#include "fovea/nn/cross_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "fovea/nn/volume_tokens.h"
#include "tests/train/message_of.h"

namespace fovea::nn {
namespace {
using testing::HasSubstr;

torch::Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  return torch::randn(shape, at::detail::createCPUGenerator(seed), torch::kFloat64);
}

CrossAttention layer_of(double radius_mm, int64_t queries_at_once = 4096) {
  torch::manual_seed(1);
  CrossAttention layer(CrossAttentionOptions(6, 2).source_dim(5).radius_mm(radius_mm).queries_at_once(queries_at_once));
  layer->to(torch::kFloat64);
  return layer;
}

/// A fine grid of 2 mm and an oblique coarse one of about 4 mm over the same place.
struct Grids {
  torch::Tensor x = normal({2, 60, 6}, 1), source = normal({2, 18, 5}, 2);
  torch::Tensor x_mm, source_mm;
  Grids() {
    Geometry fine, coarse;
    fine.affine = {{{2, 0, 0, -4}, {0, 2, 0, -3}, {0, 0, 2, -2}}};
    coarse.affine = {{{3.9, 0.3, 0, -4}, {-0.3, 3.9, 0, -2}, {0, 0, 4, -1}}};
    x_mm = positions_mm(cell_centres({3, 4, 5}, {1, 1, 1}), fine);
    source_mm = positions_mm(cell_centres({2, 3, 3}, {1, 1, 1}), coarse);
  }
};

/// The layer with every score in memory; -> tokens, weights [B,H,N,1+M].
std::pair<torch::Tensor, torch::Tensor> composition(CrossAttentionImpl& l, const Grids& g, double radius_mm) {
  const auto split = [](const torch::Tensor& t) { return t.unflatten(-1, {2, 3}).transpose(1, 2); };
  const auto asked = torch::cat({l.missing.expand({2, 1, 5}), g.source}, 1);
  const auto d = g.source_mm.unsqueeze(0) - g.x_mm.unsqueeze(1);
  auto bias = l.bias_last(torch::relu(l.bias_first(d.sign() * torch::log2(1 + d.abs() / 4)))).permute({2, 0, 1});
  bias = bias.masked_fill(d.square().sum(-1).sqrt() > radius_mm, -std::numeric_limits<double>::infinity());
  bias = torch::cat({torch::zeros({2, 60, 1}, torch::kFloat64), bias}, 2);
  const auto weights =
      (torch::matmul(split(l.q_proj(g.x)), split(l.k_proj(asked)).transpose(-1, -2)) / std::sqrt(3.0) + bias).softmax(-1);
  return {g.x + l.out_proj(torch::matmul(weights, split(l.v_proj(asked))).transpose(1, 2).flatten(2)), weights};
}

double largest(const torch::Tensor& t) { return t.abs().max().item<double>(); }

TEST(CrossAttention, EqualsTheCompositionForwardAndBackwardGloballyAndWithinARadius) {
  for (const double radius : {double(INFINITY), 5.0}) {
    auto layer = layer_of(radius);
    const Grids g;
    const auto upstream = normal({2, 60, 6}, 3);
    const auto ours = layer(g.x, g.x_mm, g.source, g.source_mm);
    const auto [expected, weights] = composition(*layer, g, radius);
    EXPECT_LT(largest(ours.tokens - expected), 1e-12) << radius;
    EXPECT_LT(largest(ours.gate - (1 - weights.select(3, 0).mean(1))), 1e-12) << radius;
    const auto a = torch::autograd::grad({(ours.tokens * upstream).sum()}, layer->parameters());
    const auto b = torch::autograd::grad({(expected * upstream).sum()}, layer->parameters());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_LT(largest(a[i] - b[i]), 1e-11) << radius << " " << i;
    EXPECT_LT(largest(layer->weights(g.x, g.x_mm, g.source, g.source_mm) - weights), 1e-14) << radius;
  }
}

TEST(CrossAttention, AFewQueriesAtOnceWithOnlyTheSourceNearThemGiveTheSame) {
  const Grids g;
  const auto whole = layer_of(5)(g.x, g.x_mm, g.source, g.source_mm);
  const auto parts = layer_of(5, 7)(g.x, g.x_mm, g.source, g.source_mm);
  EXPECT_LT(largest(whole.tokens - parts.tokens), 1e-13);
  EXPECT_LT(largest(whole.gate - parts.gate), 1e-13);
}

TEST(CrossAttention, MovingThePatientOrReorderingTheSourceChangesNothing) {
  const Grids g;
  auto layer = layer_of(6);
  const auto still = layer(g.x, g.x_mm, g.source, g.source_mm).tokens;
  const auto shift = torch::tensor({-120.5, 33.25, 871.0}, torch::kFloat64);
  EXPECT_LT(largest(layer(g.x, g.x_mm + shift, g.source, g.source_mm + shift).tokens - still), 1e-12);
  const auto order = torch::randperm(18, at::detail::createCPUGenerator(4));
  const auto reordered = layer(g.x, g.x_mm, g.source.index_select(1, order), g.source_mm.index_select(0, order));
  EXPECT_LT(largest(reordered.tokens - still), 1e-12);
}

TEST(CrossAttention, MissingSourceAndGridsThatDoNotOverlapReadTheMissingTokenAlone) {
  const Grids g;
  auto layer = layer_of(6);
  const auto none = layer(g.x, g.x_mm, g.source.slice(1, 0, 0), g.source_mm.slice(0, 0, 0));
  const auto masked = layer(g.x, g.x_mm, g.source, g.source_mm, torch::zeros({2, 18}, torch::kBool));
  const auto elsewhere = layer(g.x, g.x_mm, g.source, g.source_mm + 500);
  const auto alone = g.x + layer->out_proj(layer->v_proj(layer->missing));
  for (const auto* found : {&none, &masked, &elsewhere}) {
    EXPECT_LT(largest(found->tokens - alone), 1e-13);
    EXPECT_LT(largest(found->gate), 1e-12);
  }
}

TEST(CrossAttention, CapturedRowsAreTheWeightsAndTheirCentroidIsInMillimetres) {
  const Grids g;
  auto layer = layer_of(5);
  layer->set_capture(true);
  layer(g.x, g.x_mm, g.source, g.source_mm);
  const auto queries = torch::tensor({0, 31, 59});
  const auto rows = layer->rows(queries), weights = composition(*layer, g, 5).second.index_select(2, queries);
  EXPECT_LT(largest(rows - weights), 1e-12);
  const auto centroid = attended_mm(rows, g.source_mm);
  const auto expected = torch::einsum("bhrm,mc->bhrc", {weights.slice(3, 1), g.source_mm}) / weights.slice(3, 1).sum(-1, true);
  EXPECT_LT(largest(centroid - expected), 1e-11);
}

TEST(CrossAttention, TokensAndPositionsThatDoNotFitAreRefusedWithOneLine) {
  const Grids g;
  auto layer = layer_of(5);
  EXPECT_EQ(message_of([&] { layer(g.x, g.x_mm.slice(0, 1), g.source, g.source_mm); }),
            "cross_attention: x_mm is [59, 3], expected [60,3]");
  EXPECT_THAT(message_of([&] { layer(g.x, g.x_mm, g.x, g.x_mm); }), HasSubstr("source is [2, 60, 6], expected [B,tokens,5]"));
  EXPECT_THAT(message_of([&] { layer(g.x, g.x_mm * NAN, g.source, g.source_mm); }), HasSubstr("x_mm has a position"));
  EXPECT_THAT(message_of([&] { layer(g.x, g.x_mm, g.source.slice(0, 1), g.source_mm); }), HasSubstr("source has 1 samples"));
  EXPECT_THAT(message_of([] { CrossAttention(CrossAttentionOptions(6, 2).radius_mm(0)); }), HasSubstr("radius_mm is 0"));
}

}  // namespace
}  // namespace fovea::nn
