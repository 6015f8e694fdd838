#include "fovea/recipes/gaussian_ring.h"

#include <gtest/gtest.h>

#include <cmath>

#include "fovea/recipes/gaussian_tumour.h"

namespace fovea::recipes {
namespace {

TEST(GaussianTumour, EarlierScanIsTheFollowUpOfATumourThatDidNotChange) {
  TumourOptions options;
  options.move = options.grow = options.noise = 0;
  const auto still = draw_tumours(4, options, at::detail::createCPUGenerator(1));
  EXPECT_TRUE(still.voxels.equal(still.earlier));
  options.move = 0.1;
  const auto moved = draw_tumours(4, options, at::detail::createCPUGenerator(1));
  EXPECT_TRUE(moved.earlier.equal(still.earlier));
  EXPECT_GT((moved.voxels - moved.earlier).abs().max().item<double>(), 0.05);
}

TEST(GaussianRing, PointsForThePositionLieCloserThanThoseForTheSizeAndOneSeedGivesOneResult) {
  constexpr double kSigma_vox = 4;
  const auto learn = [&](RingGoal goal) { return learn_ring(goal, {kSigma_vox}, 7, /*steps=*/600, /*only_vox=*/kSigma_vox).tumours[0]; };
  const RingPoints position = learn(RingGoal::kPosition), size = learn(RingGoal::kSize);
  EXPECT_NEAR(position.radius, 1, 0.1);
  EXPECT_NEAR(size.radius, std::sqrt(2), 0.14);
  EXPECT_EQ(position.radius, learn(RingGoal::kPosition).radius);
}

}  // namespace
}  // namespace fovea::recipes
