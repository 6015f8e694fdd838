#include "fovea/recipes/side_and_flag.h"

#include <gtest/gtest.h>

namespace fovea::recipes {
namespace {

double average(const torch::Tensor& t) { return t.to(torch::kFloat64).mean().item<double>(); }

TEST(SideAndFlag, NeitherSideNorFlagSaysAnythingAloneAndTogetherTheyAreTheAnswer) {
  const auto patients = draw_sided_lesions(4096, 0, at::detail::createCPUGenerator(1));
  const auto flag = patients.codes.select(1, 0), answer = patients.answer > 0.5;
  EXPECT_TRUE(answer.equal(patients.side != flag));
  for (const auto& known : {patients.side, flag})
    for (int64_t value : {0, 1}) EXPECT_NEAR(average(answer.masked_select(known == value)), 0.5, 0.05);
}

TEST(SideAndFlag, LesionIsBrighterInItsHalfAndTheSameSeedDrawsTheSamePatients) {
  const auto patients = draw_sided_lesions(512, 0.1, at::detail::createCPUGenerator(2));
  const auto halves = patients.voxels.view({512, 4, 8, 2, 24}).mean({1, 2, 4});
  EXPECT_GT(average(halves.argmax(1) == patients.side), 0.9);
  EXPECT_NEAR(average(patients.codes < 0), 0.1, 0.03);
  EXPECT_NEAR(average(patients.numbers.isnan()), 0.2, 0.04);
  const auto again = draw_sided_lesions(512, 0.1, at::detail::createCPUGenerator(2));
  EXPECT_TRUE(again.voxels.equal(patients.voxels) && again.codes.equal(patients.codes));
}

TEST(SideAndFlag, ScanIsZeroWhereNotCoveredAndCoversTheMiddleAndTheWholeLesion) {
  const auto patients = draw_sided_lesions(256, 0, at::detail::createCPUGenerator(4));
  EXPECT_EQ(average(patients.voxels.masked_select(~patients.covered.view({256, 1, 1, 1, 48})).abs()), 0);
  EXPECT_TRUE(patients.covered.slice(1, 8, 40).all().item<bool>());  // no lesion reaches further than 15 voxels
  const auto reach = patients.covered.view({256, 2, 24}).sum(2);
  EXPECT_EQ(reach.remainder(2).sum().item<int64_t>(), 0);
  EXPECT_EQ(reach.min().item<int64_t>(), 16);
  EXPECT_EQ(reach.max().item<int64_t>(), 24);
}

TEST(SideAndFlag, NetworksHaveNoMoreParametersThanCoAttentionAndOneSeedGivesOneResult) {
  const std::vector<SideFlagNetwork> networks = {SideFlagNetwork::kTwoWay, SideFlagNetwork::kParallel,
                                                 SideFlagNetwork::kImageAlone, SideFlagNetwork::kTableAlone,
                                                 SideFlagNetwork::kLate};
  const auto found = learn_side_and_flag(networks, 3, /*steps=*/4), again = learn_side_and_flag(networks, 3, 4);
  for (size_t i = 0; i < networks.size(); ++i) {
    EXPECT_EQ(found.scores[i].cross_entropy_nats, again.scores[i].cross_entropy_nats) << name_of(networks[i]);
    if (networks[i] == SideFlagNetwork::kLate) {
      EXPECT_NEAR(double(found.scores[i].parameters) / double(found.scores[0].parameters), 1, 0.01);
    }
    EXPECT_LE(found.scores[i].parameters, found.scores[0].parameters + 16) << name_of(networks[i]);
  }
  ASSERT_TRUE(found.attention);
  EXPECT_NEAR(found.attention->example_rows.sum().item<double>(), 1, 1e-5);
}

}  // namespace
}  // namespace fovea::recipes
