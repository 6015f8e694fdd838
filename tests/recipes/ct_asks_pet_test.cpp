#include "fovea/recipes/ct_asks_pet.h"

#include <gtest/gtest.h>

namespace fovea::recipes {
namespace {

TEST(CtAsksPet, CtShowsBothTumoursAlikeAndPetShowsTheLivingOne) {
  const auto pairs = draw_ct_pet(256, at::detail::createCPUGenerator(1), 0.0);
  const auto ct = pairs.ct.squeeze(1), viable = pairs.viable > 0.5, necrotic = (pairs.tumour > 0.5) & ~viable;
  const auto mean = [](const torch::Tensor& v, const torch::Tensor& where) { return v.masked_select(where).mean().item<double>(); };
  EXPECT_NEAR(mean(ct, viable), mean(ct, necrotic), 0.02);
  EXPECT_NEAR(mean(ct, pairs.tumour < 0.5), mean(ct, viable) - 1, 0.02);
  const auto pet = torch::upsample_nearest3d(pairs.pet, {4, 16, 40}).squeeze(1);
  EXPECT_GT(mean(pet, viable), 2);
  EXPECT_LT(mean(pet, necrotic), 0.8);
  EXPECT_TRUE((pairs.viable.flatten(1).sum(1) > 0).all().item<bool>());
}

TEST(CtAsksPet, ShiftMovesThePetAndNothingElse) {
  const auto still = draw_ct_pet(64, at::detail::createCPUGenerator(2), 0.0), moved = draw_ct_pet(64, at::detail::createCPUGenerator(2), 2.0);
  EXPECT_TRUE(still.ct.equal(moved.ct) && still.viable.equal(moved.viable));
  // Away from the border, what was at x is at x + 2, but for the noise.
  const auto a = still.pet.slice(4, 2, 16).mean({0, 1, 2, 3}), b = moved.pet.slice(4, 4, 18).mean({0, 1, 2, 3});
  EXPECT_LT((a - b).abs().max().item<double>(), 0.1);
}

TEST(CtAsksPet, NetworksAreOfEqualSizeAndOneSeedGivesOneResult) {
  const std::vector<CtPetNetwork> networks = {CtPetNetwork::kCrossAttention, CtPetNetwork::kConcatenation};
  const auto found = learn_ct_pet(networks, 3, /*steps=*/2), again = learn_ct_pet(networks, 3, 2);
  for (size_t i = 0; i < networks.size(); ++i) EXPECT_EQ(found.scores[i].auc, again.scores[i].auc) << name_of(networks[i]);
  EXPECT_NEAR(double(found.scores[1].parameters) / double(found.scores[0].parameters), 1, 0.07);
  ASSERT_TRUE(found.attention);
  EXPECT_EQ(found.attention->slope, again.attention->slope);
  EXPECT_LT(found.attention->gate_without_pet, 1e-6);
}

}  // namespace
}  // namespace fovea::recipes
