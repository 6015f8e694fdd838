#include "fovea/data/patch_mask.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "fovea/core/error.h"

namespace fovea::data {
namespace {

TEST(PatchMask, KeepsTheWholePartOfWhatIsNotHidden) {
  EXPECT_EQ(kept_patches(4096, 0.97), 122);
  EXPECT_EQ(kept_patches(4096, 0.75), 1024);
  EXPECT_EQ(kept_patches(100, 0.9), 10);
  EXPECT_EQ(kept_patches(3, 0.9), 0);
  EXPECT_EQ(kept_patches(5, 0), 5);
}

TEST(PatchMask, DrawsDistinctPatchesInOrderAndTheSameOnesAgain) {
  Rng a(7, 0, 3), b(7, 0, 3), c(7, 0, 4);
  const auto kept = draw_kept_patches(500, 0.9, a);
  EXPECT_EQ(kept.size(), 50u);
  EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end()));
  EXPECT_EQ(std::adjacent_find(kept.begin(), kept.end()), kept.end());
  EXPECT_GE(kept.front(), 0);
  EXPECT_LT(kept.back(), 500);
  EXPECT_EQ(kept, draw_kept_patches(500, 0.9, b));
  EXPECT_NE(kept, draw_kept_patches(500, 0.9, c));
}

TEST(PatchMask, KeepsEveryPatchEquallyOften) {
  std::vector<int> counts(20, 0);
  for (uint32_t i = 0; i < 20000; ++i) {
    Rng rng(1, 0, i);
    for (const int64_t patch : draw_kept_patches(20, 0.75, rng)) ++counts[patch];
  }
  for (const int count : counts) EXPECT_NEAR(count, 5000, 5 * 61);  // five standard deviations of a binomial count
}

TEST(PatchMask, RefusesARatioThatIsNone) {
  EXPECT_THROW(kept_patches(10, 1), ArgumentError);
  EXPECT_THROW(kept_patches(10, -0.1), ArgumentError);
  EXPECT_THROW(kept_patches(0, 0.5), ArgumentError);
}

TEST(PatchMask, EveryKindKeepsTheSameNumberOfDistinctPatchesInOrderAtEveryRatio) {
  const std::array<int64_t, 3> grids[] = {{6, 7, 5}, {1, 14, 14}, {16, 16, 16}};
  for (const auto& grid : grids)
    for (const double ratio : {0.0, 0.4, 0.75, 0.9, 0.97})
      for (const auto mask : {PatchMask::kRandom, PatchMask::kBlock, PatchMask::kTube, PatchMask::kGrid})
        for (uint32_t draw = 0; draw < 5; ++draw) {
          Rng rng(3, draw, 0);
          const auto kept = draw_kept_patches(grid, ratio, mask, rng);
          ASSERT_EQ(int64_t(kept.size()), kept_patches(grid, ratio, mask));
          ASSERT_TRUE(std::adjacent_find(kept.begin(), kept.end(), std::greater_equal<>()) == kept.end());
          ASSERT_TRUE(kept.empty() || kept.back() < grid[0] * grid[1] * grid[2]);
        }
}

TEST(PatchMask, TubesAreTheSameInEverySlice) {
  Rng rng(5, 0, 0);
  const auto kept = draw_kept_patches({4, 5, 6}, 0.7, PatchMask::kTube, rng);
  const size_t slice = kept.size() / 4;
  for (size_t i = 0; i < kept.size(); ++i) EXPECT_EQ(kept[i], kept[i % slice] + int64_t(i / slice) * 30);
}

TEST(PatchMask, BlocksHideMorePatchesWhoseNeighboursAreHiddenThanRandomMasksDo) {
  const auto lonely = [](PatchMask mask) {  // hidden pairs along x
    int64_t pairs = 0;
    for (uint32_t draw = 0; draw < 20; ++draw) {
      Rng rng(9, draw, 0);
      std::vector<bool> shown(512);
      for (const int64_t p : draw_kept_patches({8, 8, 8}, 0.5, mask, rng)) shown[size_t(p)] = true;
      for (size_t i = 0; i < 512; ++i) pairs += i % 8 < 7 && !shown[i] && !shown[i + 1];
    }
    return pairs;
  };
  EXPECT_GT(lonely(PatchMask::kBlock), lonely(PatchMask::kRandom) * 3 / 2);
}

TEST(PatchMask, ALatticeOfOneInTwentySevenLeavesNoHiddenPatchFartherThanTwoSteps) {
  Rng rng(11, 0, 0);
  const auto kept = draw_kept_patches({9, 9, 9}, 26.0 / 27, PatchMask::kGrid, rng);
  for (int64_t p = 0; p < 729; ++p) {
    int64_t nearest = 9;
    for (const int64_t k : kept)
      nearest = std::min(nearest, std::max({std::abs(k / 81 - p / 81), std::abs(k / 9 % 9 - p / 9 % 9), std::abs(k % 9 - p % 9)}));
    EXPECT_LE(nearest, 2) << p;
  }
}

}  // namespace
}  // namespace fovea::data
