#include "fovea/recipes/ct_asks_pet.h"

#include <gtest/gtest.h>

#include "fovea/core/error.h"
#include "fovea/recipes/ct_pet_study.h"

namespace fovea::recipes {
namespace {

TEST(CtAsksPet, CtShowsBothTumoursAlikeAndPetShowsTheLivingOne) {
  const auto pairs = draw_ct_pet(256, at::detail::createCPUGenerator(1), 0.0);
  const auto ct = pairs.ct.squeeze(1), viable = pairs.viable > 0.5, necrotic = (pairs.tumour > 0.5) & ~viable;
  const auto mean = [](const torch::Tensor& v, const torch::Tensor& where) { return v.masked_select(where).mean().item<double>(); };
  EXPECT_NEAR(mean(ct, viable), mean(ct, necrotic), 0.02);
  EXPECT_NEAR(mean(ct, pairs.tumour < 0.5), mean(ct, viable) - 1, 0.02);
  const auto pet = torch::upsample_nearest3d(pairs.pet, {2, 12, 60}).squeeze(1);
  EXPECT_GT(mean(pet, viable), 2);
  EXPECT_LT(mean(pet, necrotic), 1);
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
  // The rival is never the smaller one.
  EXPECT_GE(found.scores[1].parameters, found.scores[0].parameters);
  EXPECT_NEAR(double(found.scores[1].parameters) / double(found.scores[0].parameters), 1, 0.08);
  ASSERT_TRUE(found.attention);
  EXPECT_EQ(found.attention->slope, again.attention->slope);
  EXPECT_LT(found.attention->gate_without_pet, 1e-6);
  EXPECT_EQ(learn_ct_pet({CtPetNetwork::kConcatenation}, 3, 2).scores[0].auc, found.scores[1].auc) << "alone";
}

// A hot cube in a cold PET of 4 mm beside a CT of 2 mm; weights are untrained, so that only the geometry is asked.
TEST(CtAsksPet, AStudyAnswersInMillimetresOfItsAffines) {
  CtPetStudy study;
  study.ct = torch::zeros({1, 1, 4, 10, 10}), study.pet = torch::ones({1, 1, 4, 8, 8});
  study.ct_grid.shape = {4, 10, 10}, study.pet_grid.shape = {4, 8, 8};
  for (int axis = 0; axis < 3; ++axis) study.ct_grid.affine[axis][axis] = 2, study.pet_grid.affine[axis][axis] = 4;
  study.voxels = torch::tensor({5, 137, 399});
  const auto found = *learn_ct_pet({CtPetNetwork::kCrossAttention}, 3, 2, 2, kSharpen, &study).study;
  EXPECT_NEAR(found.attended_suv, 1, 1e-5);
  EXPECT_LT(found.moved_together_mm, 1e-9);
  EXPECT_EQ(found.gate_elsewhere, 0);
  EXPECT_GT(found.gate, 0);
  EXPECT_EQ(found.asking_mm[1][2].item<double>(), 2);  // voxel 137 of 10 x 10 a slice: z 1
}

TEST(CtPetStudy, FolderWithoutItsSeriesIsRefusedByName) {
  EXPECT_THROW(read_ct_pet_study("nowhere", kRightHilum), IoError);
}

}  // namespace
}  // namespace fovea::recipes
