// The bands of the claims: what each computation must give, whatever the instruction set. The program itself compares
// nothing with them.
#include "fovea/recipes/claims.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <set>

#include "fovea/core/error.h"

namespace fovea::recipes {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

ClaimResult found(const std::string& id, bool full = false) {
  const auto outcome = run_claims({id}, {full, /*seed=*/0, {}}).front();
  EXPECT_EQ(outcome.failure, "");
  if (!outcome.result) throw std::runtime_error(id + " was not evaluated: " + outcome.not_evaluated);
  return *outcome.result;
}

TEST(Claims, NameEveryStatementOnceInOrder) {
  std::set<std::string> ids;
  int last = 0;
  for (const Claim& claim : claims()) {
    EXPECT_TRUE(ids.insert(claim.id).second) << claim.id << " is there twice";
    EXPECT_GT(std::stoi(claim.id.substr(1)), last);
    last = std::stoi(claim.id.substr(1));
    EXPECT_FALSE(claim.statement.empty() || claim.claimed.empty()) << claim.id;
    EXPECT_TRUE(claim.run) << claim.id;
  }
  EXPECT_EQ(ids.size(), 50u);
}

TEST(Claims, RefuseAnUnknownIdAndNameTheNearest) {
  try {
    run_claims({"C3", "C99"}, {});
    FAIL();
  } catch (const ArgumentError& e) {
    EXPECT_THAT(e.what(), HasSubstr("C99"));
    EXPECT_THAT(e.what(), HasSubstr("there are C1 to C50"));
  }
}

TEST(Claims, TrainedOnesNeedFullAndSayWhatHasToBeFetched) {
  EXPECT_EQ(run_claims({"C47"}, {})[0].not_evaluated, "needs --full");
  const char* before = std::getenv("FOVEA_DATA");
  const std::string kept = before ? before : "";
  setenv("FOVEA_DATA", "/nowhere", 1);
  for (const char* id : {"C31", "C41", "C49"}) {
    const auto full = run_claims({id}, {/*full=*/true, 0, {}})[0];
    EXPECT_FALSE(full.result) << id;
    EXPECT_THAT(full.not_evaluated, HasSubstr("needs")) << id;
  }
  before ? setenv("FOVEA_DATA", kept.c_str(), 1) : unsetenv("FOVEA_DATA");
}

TEST(Claims, GiveTheSameFiguresOnEveryRun) {
  for (const char* id : {"C1", "C6", "C18", "C28", "C40"}) EXPECT_EQ(found(id).figures, found(id).figures) << id;
}

TEST(C1, AttentionEqualsItsDefinition) {
  const auto r = found("C1");
  EXPECT_EQ(r.verdict_text(), "exact");
  EXPECT_LE(r.figure("difference_f64"), 1e-12);
}

TEST(C2, ALongerWorseAlignedKeyOutscoresAShorterOne) {
  const auto r = found("C2");
  EXPECT_EQ(r.verdict_text(), "wording loose");
  EXPECT_LT(r.figure("cosine_longer"), r.figure("cosine_aligned"));
  EXPECT_GT(r.figure("dot_longer"), r.figure("dot_aligned"));
}

TEST(C3, VarianceOfDotProductsIsTheNumberOfChannels) {
  const auto r = found("C3");
  EXPECT_EQ(r.verdict_text(), "holds");
  for (const int C : {16, 64, 128, 512}) {
    EXPECT_NEAR(r.figure("variance_" + std::to_string(C)) / C, 1, 0.03);
    EXPECT_NEAR(r.figure("variance_scaled_" + std::to_string(C)), 1, 0.03);
  }
}

// Bands: three standard errors of 2000 draws, and the rounding of the table.
TEST(C4, UnscaledSoftmaxIsOverconfident) {
  const auto r = found("C4");
  EXPECT_EQ(r.verdict_text(), "holds");
  const double largest[] = {0.58, 0.79, 0.85, 0.93}, entropy[] = {1.38, 0.58, 0.40, 0.18};
  const char* widths[] = {"16", "64", "128", "512"};
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(r.figure(std::string("largest_weight_") + widths[i]), largest[i], 0.02);
    EXPECT_NEAR(r.figure(std::string("entropy_") + widths[i]), entropy[i], 0.05);
    EXPECT_NEAR(r.figure(std::string("largest_weight_scaled_") + widths[i]), 0.107, 0.005);
    EXPECT_NEAR(r.figure(std::string("entropy_scaled_") + widths[i]), 3.69, 0.02);
  }
}

TEST(C5, GradientsShrinkNinefoldAndDoNotVanish) {
  const auto r = found("C5");
  EXPECT_THAT(r.verdict_text(), StartsWith("holds, if"));
  const std::pair<const char*, double> table[] = {{"16", 0.554}, {"64", 0.289}, {"128", 0.214}, {"512", 0.102}};
  for (const auto& [C, mass] : table) EXPECT_NEAR(r.figure(std::string("gradient_mass_") + C), mass, 0.02);
  EXPECT_NEAR(r.figure("gradient_mass_scaled"), 0.96, 0.005);
  EXPECT_NEAR(r.figure("factor_512"), 9, 1.5);
}

TEST(C5, TrainingWithoutTheScaleStaysNearChance) {
  const auto r = found("C5", /*full=*/true);
  EXPECT_GE(r.figure("accuracy_scaled"), 0.95);
  EXPECT_LE(r.figure("accuracy_unscaled"), 0.5);
  EXPECT_GT(r.figure("gradient_norm_scaled"), 0);
  EXPECT_GT(r.figure("gradient_norm_unscaled"), 0);
}

TEST(C6, RowsAreABudget) {
  const auto r = found("C6");
  EXPECT_EQ(r.verdict_text(), "exact");
  EXPECT_LE(r.figure("sum_error"), 1e-12);
  EXPECT_EQ(r.figure("pairs_out_of_order"), 0);
}

TEST(C7, TheWorkedExampleNearlyIgnoresV2) {
  const auto r = found("C7");
  EXPECT_EQ(r.verdict_text(), "holds");
  const double expected[] = {0.569, 0.002, 0.429, 0.301, 0.301, 0.399};
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(r.figures[i].second, expected[i], 5e-4);
  EXPECT_NEAR(r.figure("o1"), 1.447, 5e-4);
  EXPECT_NEAR(r.figure("o2"), 4.104, 5e-4);
}

TEST(C8, CountsThePhantomWhenNoScanIsNamed) {
  const auto r = found("C8");
  EXPECT_THAT(r.verdict_text(), HasSubstr("phantom"));
  EXPECT_GT(r.figure("voxels"), 2e6);
}

TEST(C9AndC10, CountTokens) {
  EXPECT_EQ(found("C9").figure("tokens"), 4096);
  EXPECT_EQ(found("C10").figure("tokens"), 2097152);
}

TEST(C11AndC12, GlobalAttentionOverVoxelsNeeds16TiBAHead) {
  const auto r = found("C11");
  EXPECT_EQ(r.verdict_text(), "exact");
  EXPECT_EQ(r.figure("pairs_4096"), 16777216);
  EXPECT_EQ(r.figure("bytes_4096"), 64 << 20);
  EXPECT_EQ(r.figure("pairs_voxels"), 4398046511104);
  EXPECT_EQ(r.figure("bytes_voxels"), std::pow(2.0, 44));
  const auto infeasible = found("C12");
  EXPECT_EQ(infeasible.verdict_text(), "holds");
  EXPECT_EQ(infeasible.figure("plain_bytes"), std::pow(2.0, 44));
  EXPECT_LT(infeasible.figure("fused_bytes"), 3e9);
  EXPECT_GT(infeasible.figure("fused_seconds"), 1);
}

TEST(C13AndC14, WindowsSaveAFactor4096OfVoxels8OfPatches) {
  const auto r = found("C13");
  EXPECT_EQ(r.verdict_text(), "holds, if the tokens are voxels");
  EXPECT_EQ(r.figure("voxels"), 4096);
  EXPECT_EQ(r.figure("patches"), 8);
  EXPECT_EQ(std::floor(r.figure("with_projections")), 3449);
  EXPECT_EQ(r.figure("windowed_pairs"), 1073741824);
  EXPECT_EQ(found("C14").verdict_text(), "exact");
}

TEST(C15, NothingIsReachedOutsideAWindow) {
  EXPECT_EQ(found("C15").figure("reached_outside"), 0);
  EXPECT_EQ(found("C15").verdict_text(), "exact");
}

TEST(C16, WindowsFitBecauseScoresAreNotStored) {
  const auto r = found("C16");
  EXPECT_EQ(r.figure("head_bytes_128"), 4.0 * (1 << 30));
  EXPECT_NEAR(r.figure("block_bytes_96"), 484e6, 0.5e6);
  if (r.computed.find("not measured") == std::string::npos) {
    EXPECT_EQ(r.verdict_text(), "holds, if the scores are not stored");
  }
}

TEST(C17, TheCornerTokenMeets448NewOnes) {
  const auto r = found("C17");
  EXPECT_EQ(r.verdict_text(), "exact");
  EXPECT_EQ(r.figure("met_only_after"), 8 * 8 * 8 - 4 * 4 * 4);
}

TEST(C18, TheFieldCoversTheAxisAfter2NOverWLessOneLayers) {
  const auto r = found("C18");
  EXPECT_THAT(r.verdict_text(), StartsWith("holds, if the stack is deep"));
  EXPECT_EQ(r.figure("worst_16_4"), 7);
  EXPECT_EQ(r.figure("worst_64_8"), 15);
  EXPECT_EQ(r.figure("worst_128_8"), 31);
  EXPECT_EQ(r.figure("best_16_4"), 4);
  EXPECT_EQ(r.figure("best_64_8"), 8);
  EXPECT_EQ(r.figure("best_128_8"), 16);
  EXPECT_EQ(r.figure("differing"), 0);
  EXPECT_LT(r.figure("merging_128_8"), r.figure("worst_128_8"));
}

TEST(C19, AThirdOfThePairsIsMasked) {
  const auto r = found("C19");
  EXPECT_EQ(r.verdict_text(), "exact");
  EXPECT_NEAR(r.figure("masked_percent"), 33.0, 0.05);
  EXPECT_EQ(r.figure("windows_with_mask"), 37);
  EXPECT_EQ(r.figure("windows"), 64);
}

TEST(C20, GlobalAttentionAndShiftedWindowsCompareFarNodulesTheOthersGuess) {
  const auto r = found("C20", /*full=*/true);
  EXPECT_EQ(r.verdict_text(), "holds");
  EXPECT_GE(r.figure("accuracy_global"), 0.95);
  EXPECT_GE(r.figure("accuracy_shifted"), 0.95);
  for (const char* name : {"windows", "convolutions"}) {
    EXPECT_LE(r.figure(std::string("accuracy_") + name), 0.6) << name;
    EXPECT_GE(r.figure(std::string("cross_entropy_") + name), 0.68) << name;
  }
}

TEST(C21AndC22, HeadsAddNoParametersAndLittleWork) {
  const auto r = found("C21");
  EXPECT_EQ(r.verdict_text(), "exact");
  for (const auto& [name, value] : r.figures) EXPECT_EQ(value, 2362368) << name;
  const auto work = found("C22");
  EXPECT_EQ(work.verdict_text(), "holds");
  EXPECT_NEAR(work.figure("softmax_percent_1"), 0.05, 0.005);
  EXPECT_NEAR(work.figure("softmax_percent_12"), 0.57, 0.005);
}

TEST(C23, AHigherTemperatureFlattens) {
  const auto r = found("C23");
  EXPECT_EQ(r.verdict_text(), "wording inverted");
  EXPECT_LT(r.figure("entropy_0.25"), r.figure("entropy_4"));
  EXPECT_LT(r.figure("entropy_4"), std::log(64.0));
  const auto trained = found("C23", /*full=*/true);
  EXPECT_EQ(trained.verdict_text(), "wording inverted");
  EXPECT_GT(trained.figure("beta_tumour"), trained.figure("beta_oedema"));
  EXPECT_GT(trained.figure("beta_oedema"), trained.figure("beta_normal"));
  EXPECT_LT(trained.figure("tau_tumour"), trained.figure("tau_normal"));
}

TEST(C24, ThreeHeadsEachServeATissueThatOneHeadCannot) {
  const auto r = found("C24", /*full=*/true);
  EXPECT_EQ(r.verdict_text(), "holds");
  EXPECT_LT(r.figure("error_three_heads"), 0.5 * r.figure("error_one_head"));
  EXPECT_EQ(r.figure("parameters_three_heads"), r.figure("parameters_one_head") + 2);  // two more temperatures
  EXPECT_GT(r.figure("smallest_purity"), 0.7);
  EXPECT_GT(r.figure("ablation_own"), 0.5);
  EXPECT_LT(r.figure("ablation_others"), 0.05);
}

TEST(C25, AttentionIsEquivariantNotInvariant) {
  const auto r = found("C25");
  EXPECT_EQ(r.verdict_text(), "wording loose");
  EXPECT_LE(r.figure("equivariance"), 1e-6);
  EXPECT_GE(r.figure("invariance"), 1e-2);
  EXPECT_GE(r.figure("with_bias"), 1e-2);
  EXPECT_LE(r.figure("pooled"), 1e-6);
}

TEST(C26, TheBiasLearnsTheRightNeighbour) {
  const auto r = found("C26", /*full=*/true);
  EXPECT_EQ(r.verdict_text(), "holds");
  EXPECT_EQ(r.figure("peaks_of_5"), 5);
  EXPECT_GT(r.figure("worst_accuracy"), 0.99);
  EXPECT_LT(r.figure("blind_above_majority"), 0.03);
}

TEST(C27AndC28, NormedScoresAreCorrelationsWithinTheRootOfC) {
  const auto r = found("C27");
  EXPECT_EQ(r.verdict_text(), "exact");
  EXPECT_LE(r.figure("identity"), 1e-13);
  EXPECT_LE(r.figure("correlation"), 1e-13);
  EXPECT_LE(r.figure("activations"), 1e-5);
  EXPECT_NEAR(r.figure("mean_temperature"), 0.6, 0.02);
  const auto bounded = found("C28");
  EXPECT_EQ(bounded.verdict_text(), "exact");
  EXPECT_EQ(bounded.figure("bound"), 8);
  EXPECT_NEAR(bounded.figure("largest_score"), 8, 1e-6);
  EXPECT_LE(bounded.figure("change_x100"), 1e-6);
}

TEST(C30, AttentionIsGaussianKernelRegression) {
  const auto r = found("C30");
  EXPECT_EQ(r.verdict_text(), "exact");
  EXPECT_LE(r.figure("gaussian"), 1e-13);
  EXPECT_LE(r.figure("dot_product_unit_keys"), 1e-13);
  EXPECT_GT(r.figure("dot_product"), 0.1);
}

TEST(C32, TheRingIsOneSigmaForTheEdgeAndRootTwoForTheShell) {
  const auto r = found("C32");
  EXPECT_THAT(r.verdict_text(), StartsWith("holds, if the goal is edge or position"));
  EXPECT_NEAR(r.figure("edge"), 1, 1e-4);
  EXPECT_NEAR(r.figure("shell_mass"), std::sqrt(2), 1e-4);
  EXPECT_NEAR(r.figure("size"), std::sqrt(2), 1e-4);
  EXPECT_EQ(r.figure("intensity"), 0);
}

TEST(C34, TheSpatialGateHasTwoTimesKToThePowerOfItsAxes) {
  const auto r = found("C34");
  EXPECT_EQ(r.verdict_text(), "exact");
  EXPECT_EQ(r.figure("k1_2d"), 2);
  EXPECT_EQ(r.figure("k3_2d"), 18);
  EXPECT_EQ(r.figure("k7_2d"), 98);
  EXPECT_EQ(r.figure("k3_3d"), 54);
  EXPECT_EQ(r.figure("k7_3d"), 686);
}

TEST(C33AndC44, ScaleWithTheCubeAndByAxes) {
  const auto r = found("C33");
  EXPECT_EQ(r.verdict_text(), "exact");
  EXPECT_EQ(r.figure("voxels"), 8);
  EXPECT_EQ(r.figure("global"), 64);
  EXPECT_EQ(r.figure("windows"), 8);
  const auto axial = found("C44");
  EXPECT_NEAR(axial.figure("ratio_128x256"), 85, 0.5);
  EXPECT_NEAR(axial.figure("ratio_512x256"), 171, 0.5);
  EXPECT_EQ(axial.figure("ratio_1024x1024"), 512);
}

TEST(C39AndC40, HiddenBlocksHaveHiddenNeighbours) {
  EXPECT_EQ(found("C39").figure("kept"), 122);
  const auto r = found("C40");
  EXPECT_EQ(r.verdict_text(), "holds");
  EXPECT_NEAR(r.figure("all_6_97"), 0.834, 0.0005);
  EXPECT_NEAR(r.figure("all_26_97"), 0.454, 0.0005);
  EXPECT_NEAR(r.figure("visible_97"), 0.77, 0.005);
  EXPECT_NEAR(r.figure("all_6_75"), 0.178, 0.0005);
  EXPECT_NEAR(r.figure("all_26_75"), 0.0005, 0.0001);
  EXPECT_LE(r.figure("monte_carlo_standard_errors"), 3);
}

TEST(C43, RowAttentionStaysWithinASpecies) {
  const auto r = found("C43");
  EXPECT_EQ(r.verdict_text(), "wording inverted");
  EXPECT_EQ(r.figure("row_species"), 1);
  EXPECT_EQ(r.figure("column_positions"), 1);
}

TEST(C46, TheInverseIsGreensFunctionAtTheNodes) {
  const auto r = found("C46");
  EXPECT_EQ(r.verdict_text(), "exact");
  EXPECT_LE(r.figure("difference_f64"), 1e-14);
  EXPECT_LE(r.figure("difference_f32"), 4e-6);
}

TEST(C48, PatchesAreAConvolutionAndALinearMapAndComeBackBitForBit) {
  const auto r = found("C48");
  EXPECT_EQ(r.verdict_text(), "exact");
  EXPECT_LE(r.figure("difference"), 1e-6);
  EXPECT_EQ(r.figure("voxels_changed"), 0);
}

}  // namespace
}  // namespace fovea::recipes
