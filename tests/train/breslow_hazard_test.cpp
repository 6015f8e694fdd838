#include "fovea/train/breslow_hazard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "fovea/core/error.h"

namespace fovea::train {
namespace {

TEST(BreslowHazard, WithoutRisksIsNelsonAndAalensEstimateTiesIncluded) {
  const SurvivalData data{{5, 2, 2, 7, 3, 2}, {true, true, false, false, true, true}};
  const auto hazard = breslow_hazard(data, std::vector<double>(6, 0));
  EXPECT_EQ(hazard.times, (std::vector<double>{2, 3, 5}));
  EXPECT_NEAR(hazard.cumulative[0], 2.0 / 6, 1e-15);
  EXPECT_NEAR(hazard.cumulative[1], 2.0 / 6 + 1.0 / 3, 1e-15);
  EXPECT_NEAR(hazard.cumulative[2], 2.0 / 6 + 1.0 / 3 + 1.0 / 2, 1e-15);
}

TEST(BreslowHazard, AddingAConstantToAllRisksChangesNoProbability) {
  const SurvivalData data{{1, 2, 3, 4, 5}, {true, false, true, true, false}};
  const std::vector<double> risk{0.3, -1, 0.8, 0, 0.2}, shifted{2.3, 1, 2.8, 2, 2.2};
  const auto a = breslow_hazard(data, risk), b = breslow_hazard(data, shifted);
  for (const double time : {0.5, 1.0, 3.5, 9.0})
    for (size_t i = 0; i < risk.size(); ++i) EXPECT_NEAR(a.survival(time, risk[i]), b.survival(time, shifted[i]), 1e-14);
  EXPECT_EQ(a.survival(0.5, 3), 1);
  EXPECT_LT(a.survival(3, 1), a.survival(3, 0));
}

TEST(BreslowHazard, RefusesRisksThatDoNotFit) {
  const SurvivalData data{{1, 2}, {true, false}};
  EXPECT_THROW(breslow_hazard(data, {0}), ArgumentError);
  EXPECT_THROW(breslow_hazard(data, {0, std::numeric_limits<double>::quiet_NaN()}), ArgumentError);
}

}  // namespace
}  // namespace fovea::train
