#include "fovea/nn/volume_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/message_of.h"

namespace fovea::nn {
namespace {
using testing::HasSubstr;

TEST(VolumeTokens, EqualsConvolutionNormAndStridedConvolutionOfTorch) {
  torch::manual_seed(1);
  VolumeTokens layer(VolumeTokensOptions(2, 4, 2, 12).strides({{1, 2, 2}, {2, 2, 2}}));
  layer->to(torch::kFloat64);
  const auto x = torch::randn({2, 2, 5, 9, 8}, torch::kFloat64);
  const auto norm = [](const torch::Tensor& y) {
    return torch::leaky_relu(torch::instance_norm(y, {}, {}, {}, {}, true, 0.1, 1e-5, false), 0.01);
  };
  auto y = norm(torch::conv3d(x, layer->conv[0]->conv->weight, {}, 1, 1));
  for (int level = 0; level < 2; ++level) {
    const auto& down = layer->down[level]->proj;
    y = torch::constant_pad_nd(y, {0, y.size(4) % 2, 0, y.size(3) % 2, 0, level == 1 ? y.size(2) % 2 : 0});
    y = torch::conv3d(y, down->weight, down->bias, level == 0 ? std::vector<int64_t>{1, 2, 2} : std::vector<int64_t>{2, 2, 2});
    y = norm(torch::conv3d(y, layer->conv[level + 1]->conv->weight, {}, 1, 1));
  }
  const auto expected = layer->norm(layer->proj(y.flatten(2).transpose(1, 2)));
  const auto [tokens, grid, levels] = layer(x);
  EXPECT_EQ(levels.size(), 3u);
  EXPECT_EQ(levels.back().sizes(), y.sizes());
  EXPECT_EQ(grid, (Triple{3, 3, 2}));
  ASSERT_EQ(tokens.sizes(), expected.sizes());
  EXPECT_LT((tokens - expected).abs().max().item<double>(), 1e-12);
  EXPECT_EQ(layer->grid_of({5, 9, 8}), grid);
  EXPECT_EQ(layer->cell(), (Triple{2, 4, 4}));
}

TEST(VolumeTokens, EveryWeightLearns) {
  torch::manual_seed(2);
  VolumeTokens layer(VolumeTokensOptions(1, 4, 2, 8));
  layer(torch::randn({2, 1, 8, 8, 12})).tokens.square().mul(torch::arange(8)).sum().backward();
  for (const auto& p : layer->named_parameters()) {
    ASSERT_TRUE(p.value().grad().defined()) << p.key();
    EXPECT_GT(p.value().grad().abs().max().item<double>(), 0) << p.key();
  }
}

TEST(VolumeTokens, CentresOfCellsInMillimetresFollowAnObliqueAffine) {
  Geometry geometry;
  geometry.shape = {6, 8, 4};
  geometry.affine = {{{-0.9, 0.1, 0.2, 10}, {0.0, 1.1, -0.3, -20}, {0.3, 0.0, 2.0, 5}}};
  const Triple grid{3, 4, 2}, cell{2, 2, 2};
  const auto voxels = cell_centres(grid, cell);
  ASSERT_EQ(voxels.sizes(), (std::vector<int64_t>{24, 3}));
  // Token (2, 1, 0) covers voxels 4-5, 2-3 and 0-1.
  EXPECT_TRUE(voxels[(2 * 4 + 1) * 2].equal(torch::tensor({4.5, 2.5, 0.5}, torch::kFloat64)));
  const auto mm = positions_mm(voxels, geometry);
  for (int64_t i = 0; i < 24; ++i) {
    const Point expected = geometry.to_mm(
        {voxels[i][2].item<double>(), voxels[i][1].item<double>(), voxels[i][0].item<double>()});
    for (int axis = 0; axis < 3; ++axis) EXPECT_NEAR(mm[i][axis].item<double>(), expected[axis], 1e-12);
  }
}

TEST(VolumeTokens, WrongVolumesAreRefusedWithOneLine) {
  VolumeTokens layer(VolumeTokensOptions(1, 4, 2, 8));
  EXPECT_EQ(message_of([&] { layer(torch::zeros({1, 2, 8, 8, 8})); }),
            "volume_tokens: volume is [1, 2, 8, 8, 8], expected [B,1,Z,Y,X]");
  EXPECT_THAT(message_of([&] { layer(torch::zeros({1, 1, 4, 3, 2})); }),
              HasSubstr("cells of [4, 4, 4] voxels leave 1 tokens, expected 2 or more"));
  EXPECT_THAT(message_of([] { VolumeTokens(VolumeTokensOptions(1, 4, 1, 8).strides({{0, 2, 2}})); }),
              HasSubstr("a stride is [0, 2, 2]"));
}

}  // namespace
}  // namespace fovea::nn
