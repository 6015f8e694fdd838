#include "fovea/data/patch_mask.h"

#include <gtest/gtest.h>

#include <algorithm>

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

}  // namespace
}  // namespace fovea::data
