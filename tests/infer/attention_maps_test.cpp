#include "fovea/infer/attention_maps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "fovea/core/error.h"
#include "fovea/models/registry.h"
#include "fovea/models/swin_unetr.h"
#include "fovea/nn/window_attention.h"

namespace fovea::infer {
namespace {

using testing::HasSubstr;

constexpr Triple kPatch{32, 32, 64};

models::Network small_network() {
  models::SwinUnetrConfig c;
  c.in_channels = 1, c.out_channels = 3, c.feature_size = 12, c.num_heads = {3, 3, 6, 12}, c.window_size = {4, 4, 4}, c.depths = {2, 2, 2, 2};
  return models::make_network(c, 5);
}

Geometry small_grid() {
  Geometry g;
  g.shape = {40, 33, 70};
  g.affine = {{{0, -2, 0, 10}, {1.5, 0, 0, -20}, {0, 0, 3, 5}}};  // x and y change places, y is mirrored
  return g;
}

torch::Tensor small_image() {
  torch::manual_seed(1);
  return torch::randn({1, 40, 33, 70});
}

struct AttentionMaps : testing::Test {
  models::Network network = small_network();
  Geometry grid = small_grid();
  torch::Tensor image = small_image();
  SlidingWindowConfig config = nnunet_windows(kPatch, {});
};

TEST_F(AttentionMaps, AreTheRowsOfTheTokenThatHoldsTheVoxelSpreadOverTheVoxelsOfItsKeys) {
  const Triple voxel{21, 17, 40};
  const auto found = attention_maps(image, grid, *network, config, voxel);
  ASSERT_EQ(found.size(), 1u);
  const WindowAttentionMaps& w = found[0];
  ASSERT_EQ(w.layers.size(), 8u);
  // The same window once more, asked by hand.
  torch::NoGradGuard no_grad;
  const auto modules = network->named_modules();
  for (const auto& layer : w.layers) std::dynamic_pointer_cast<nn::WindowAttentionImpl>(modules[layer.layer])->set_capture(true);
  network->forward(placed_in_image(image, {-w.start[0], -w.start[1], -w.start[2]}, kPatch).unsqueeze(0));
  for (const LayerAttention& layer : w.layers) {
    SCOPED_TRACE(layer.layer);
    const auto attention = std::dynamic_pointer_cast<nn::WindowAttentionImpl>(modules[layer.layer]);
    const auto [gz, gy, gx] = layer.grid;
    Triple token;
    for (int a = 0; a < 3; ++a) {
      ASSERT_EQ(layer.token_voxels[a] * layer.grid[a], kPatch[a]);
      token[a] = (voxel[a] - w.start[a]) / layer.token_voxels[a];
    }
    ASSERT_EQ(layer.query, token);
    const auto [weights, keys] = attention->rows(torch::tensor({(token[0] * gy + token[1]) * gx + token[2]}));
    auto expected = torch::zeros_like(layer.map);
    for (int64_t j = 0; j < keys.size(1); ++j) {
      const int64_t key = keys[0][j].item<int64_t>();
      if (key < 0) continue;
      const Triple at{key / (gy * gx), key / gx % gy, key % gx};
      auto part = expected;
      for (int a = 0; a < 3; ++a) part = part.narrow(a + 1, at[a] * layer.token_voxels[a], layer.token_voxels[a]);
      part += weights[0].select(1, 0).select(1, j).view({-1, 1, 1, 1});
    }
    EXPECT_TRUE(torch::equal(layer.map, expected));
    const auto sums = layer.map.sum({1, 2, 3}) / double(layer.token_voxels[0] * layer.token_voxels[1] * layer.token_voxels[2]) + layer.padded_share;
    EXPECT_TRUE(torch::allclose(sums, torch::ones_like(sums), 1e-5, 1e-5)) << sums;
  }
}

TEST_F(AttentionMaps, OfAnUnshiftedLayerStayInsideTheWindowOfTheQuery) {
  const auto w = attention_maps(image, grid, *network, config, {5, 6, 7})[0];
  ASSERT_EQ(w.start, (Triple{0, 0, 0}));
  const LayerAttention& first = w.layers[0];
  EXPECT_EQ(first.layer, "swinViT.layers1.0.blocks.0.attn");
  EXPECT_EQ(first.token_voxels, (Triple{2, 2, 2}));
  // Voxel (5, 6, 7) is in token (2, 3, 3), that in attention window (0, 0, 0) of 4 tokens, 8 voxels.
  EXPECT_TRUE((first.map.narrow(1, 0, 8).narrow(2, 0, 8).narrow(3, 0, 8) > 0).all().item<bool>());
  EXPECT_EQ(first.map.narrow(1, 8, 24).abs().sum().item<float>(), 0);
  EXPECT_EQ(first.map.narrow(3, 8, 56).abs().sum().item<float>(), 0);
}

TEST_F(AttentionMaps, ComeForEveryWindowThatHoldsTheVoxelAndLieInThePatientWhereItDoes) {
  const Triple voxel{20, 16, 35};
  const auto all = attention_maps(image, grid, *network, config, voxel, WindowChoice::kAll);
  const auto starts = window_starts(grid.shape, config);
  size_t expected = 1;
  for (int a = 0; a < 3; ++a)
    expected *= size_t(std::count_if(starts[a].begin(), starts[a].end(), [&](int64_t s) { return s <= voxel[a] && voxel[a] < s + kPatch[a]; }));
  ASSERT_EQ(all.size(), expected);
  ASSERT_GT(expected, 1u);
  double largest = 0;
  for (const auto& w : all) {
    const Point in_image = grid.to_mm({double(voxel[2]), double(voxel[1]), double(voxel[0])});
    const Point in_window = w.geometry.to_mm({double(voxel[2] - w.start[2]), double(voxel[1] - w.start[1]), double(voxel[0] - w.start[0])});
    for (int i = 0; i < 3; ++i) EXPECT_NEAR(in_image[i], in_window[i], 1e-9);
    largest = std::max(largest, w.blend_weight);
  }
  EXPECT_EQ(attention_maps(image, grid, *network, config, voxel)[0].blend_weight, largest);
}

TEST_F(AttentionMaps, WorkOnAnImageSmallerThanThePatch) {
  grid.shape = {20, 32, 50};
  const auto w = attention_maps(image.narrow(1, 0, 20).narrow(2, 0, 32).narrow(3, 0, 50), grid, *network, config, {0, 0, 0})[0];
  EXPECT_EQ(w.start, (Triple{-6, 0, -7}));
  EXPECT_EQ(w.layers[0].query, (Triple{3, 0, 3}));
}

TEST_F(AttentionMaps, RefuseAVoxelOutsideAndAPatchThatTokensDoNotFill) {
  EXPECT_THROW(attention_maps(image, grid, *network, config, {40, 0, 0}), ArgumentError);
  EXPECT_THROW(voxel_at(grid, {1000, 0, 0}), ArgumentError);
  config.patch_size = {32, 32, 40};
  try {
    attention_maps(image, grid, *network, config, {0, 0, 0});
    FAIL();
  } catch (const ArgumentError& e) {
    EXPECT_THAT(e.what(), HasSubstr("patch (32, 32, 40), expected multiples of (32, 32, 32)"));
  }
}

TEST(VoxelAt, IsTheInverseOfToMmAndTakesTheNearest) {
  const Geometry g = small_grid();
  Point mm = g.to_mm({12, 30, 7});
  mm[2] += 1.2;  // under half of 3 mm
  EXPECT_EQ(voxel_at(g, mm), (Triple{7, 30, 12}));
}

TEST(PlacedInImage, CutsWhatHangsOver) {
  const auto map = torch::arange(8, torch::kFloat).view({1, 2, 2, 2});
  const auto image = placed_in_image(map, {-1, 0, 2}, {2, 2, 3});
  EXPECT_EQ(image[0][0][1][2].item<float>(), 6);
  EXPECT_EQ(image.sum().item<float>(), 4 + 6);
}

/// Attention that has no preference: its figures are known by counting.
models::Network indifferent_network() {
  const auto network = small_network();
  torch::NoGradGuard no_grad;
  for (const auto& item : network->named_parameters())
    if (item.key().find("attn.qkv") != std::string::npos || item.key().find("relative_position_bias_table") != std::string::npos) item.value().zero_();
  return network;
}

TEST(HeadReport, OfIndifferentHeadsIsWhatCountingGives) {
  const auto network = indifferent_network();
  Geometry grid = small_grid();
  grid.shape = {32, 32, 64};
  torch::manual_seed(2);
  const auto image = torch::randn({1, 32, 32, 64});
  auto regions = torch::zeros({32, 32, 64}, torch::kByte);
  regions.narrow(2, 0, 20).fill_(1);
  HeadReportOptions options;
  options.queries_per_window = 100000;  // all
  const auto report = head_report(image, grid, *network, nnunet_windows({32, 32, 64}, {}), regions, options);
  ASSERT_EQ(report.size(), 2u * (3 + 3 + 6 + 12));
  // Pairs within 4x4x4 tokens of 2 voxels; spacing Z, Y, X = 3, 2, 1.5 mm.
  double distance = 0;
  for (int i = 0; i < 64; ++i)
    for (int j = 0; j < 64; ++j)
      distance += std::hypot((i / 16 - j / 16) * 6.0, (i / 4 % 4 - j / 4 % 4) * 4.0, (i % 4 - j % 4) * 3.0) / 4096;
  const HeadReport& first = report[0];
  EXPECT_EQ(first.layer, "swinViT.layers1.0.blocks.0.attn");
  EXPECT_EQ(first.queries, 16 * 16 * 32);
  EXPECT_NEAR(first.effective_keys, 64, 1e-3);
  EXPECT_NEAR(first.entropy_nats, std::log(64.0), 1e-5);
  EXPECT_NEAR(first.distance_mm, distance, 1e-4);
  EXPECT_EQ(first.padded_share, 0);
  // Along x windows are 8 voxels; of region 1's 20, the first 16 fill windows and 4 share one with 4 of region 0.
  EXPECT_NEAR(first.own_region_share, (16 + 8 * 0.5 + 40) / 64.0, 1e-5);
  for (const HeadReport& r : report) {
    SCOPED_TRACE(r.layer);
    if (r.layer.find("blocks.0") != std::string::npos) {  // no shift, so no mask between regions of the shift
      EXPECT_NEAR(r.own_region_share, r.own_region_uniform, 1e-5);
    }
    EXPECT_LE(r.effective_keys, 64 + 1e-3);
  }
}

TEST(HeadReport, IsTheSameForTheSameSeedAndHasNoRegionShareWithoutRegions) {
  const auto network = small_network();
  const auto config = nnunet_windows(kPatch, {});
  const auto a = head_report(small_image(), small_grid(), *network, config), b = head_report(small_image(), small_grid(), *network, config);
  HeadReportOptions other;
  other.seed = 1;
  const auto c = head_report(small_image(), small_grid(), *network, config, {}, other);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].entropy_nats, b[i].entropy_nats);
    EXPECT_TRUE(std::isnan(a[i].own_region_share));
    EXPECT_GT(a[i].queries, 0);
    EXPECT_LE(a[i].queries, 4 * 64);
    EXPECT_GE(a[i].effective_keys, 1);
  }
  EXPECT_NE(a[0].entropy_nats, c[0].entropy_nats);
}

}  // namespace
}  // namespace fovea::infer
