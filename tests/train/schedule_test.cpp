#include "fovea/train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "fovea/core/error.h"
#include "fovea/io/config.h"

namespace fovea::train {
namespace {

TEST(Schedule, WarmUpRisesLinearlyAndReachesThePeakAtItsLastStep) {
  ScheduleConfig config;
  config.warmup = 0.1;
  EXPECT_DOUBLE_EQ(schedule_factor_at_step(config, 0, 100), 0.1);
  EXPECT_DOUBLE_EQ(schedule_factor_at_step(config, 4, 100), 0.5);
  EXPECT_DOUBLE_EQ(schedule_factor_at_step(config, 9, 100), 1.0);
  EXPECT_DOUBLE_EQ(schedule_factor_at_step(config, 10, 100), 1.0);
}

TEST(Schedule, CosineHalvesInTheMiddleAndEndsAtTheFinalFactor) {
  ScheduleConfig config{ScheduleKind::kCosine, 0, 0.2, 0.9};
  EXPECT_DOUBLE_EQ(schedule_factor_at_step(config, 0, 80), 1);
  EXPECT_DOUBLE_EQ(schedule_factor_at_step(config, 40, 80), 0.6);
  EXPECT_NEAR(schedule_factor_at_step(config, 20, 80), 0.2 + 0.8 * 0.5 * (1 + std::sqrt(0.5)), 1e-15);
  EXPECT_DOUBLE_EQ(schedule_factor_at_step(config, 80, 80), 0.2);
  EXPECT_DOUBLE_EQ(schedule_factor_at_step(config, 900, 80), 0.2);
}

TEST(Schedule, PolynomialIsThatOfNnUNet) {
  // PolyLRScheduler(initial_lr 1e-2, 1000 steps, exponent 0.9) of nnU-Net: 1e-2 * (1 - s / 1000) ** 0.9
  ScheduleConfig config{ScheduleKind::kPolynomial, 0, 0, 0.9};
  EXPECT_NEAR(1e-2 * schedule_factor_at_step(config, 500, 1000), 0.005358867312681466, 1e-16);
  EXPECT_NEAR(1e-2 * schedule_factor_at_step(config, 999, 1000), 1.9952623149688787e-05, 1e-18);
}

TEST(Schedule, ConstantStaysAfterTheWarmUp) {
  ScheduleConfig config{ScheduleKind::kConstant, 0.5, 0, 0.9};
  EXPECT_DOUBLE_EQ(schedule_factor_at_step(config, 0, 4), 0.5);
  EXPECT_DOUBLE_EQ(schedule_factor_at_step(config, 3, 4), 1);
}

TEST(Schedule, FractionOfATimeBudgetFollowsTheSameCurve) {
  ScheduleConfig config;
  config.warmup = 0.2;
  EXPECT_DOUBLE_EQ(schedule_factor_at_fraction(config, 0), 0.01);
  EXPECT_DOUBLE_EQ(schedule_factor_at_fraction(config, 0.1), 0.5);
  EXPECT_DOUBLE_EQ(schedule_factor_at_fraction(config, 0.6), 0.5);
  EXPECT_NEAR(schedule_factor_at_fraction(config, 1), 0, 1e-15);
  EXPECT_NEAR(schedule_factor_at_fraction(config, 1.7), 0, 1e-15) << "a late step keeps the final value";
}

TEST(Schedule, ExtremeSharesAndLengthsStayFinite) {
  for (const double warmup : {0.0, 1.0}) {
    for (const int64_t total : {0, 1, 2}) {
      for (int64_t step = 0; step < 3; ++step) {
        const double f = schedule_factor_at_step({ScheduleKind::kCosine, warmup, 0, 0.9}, step, total);
        EXPECT_TRUE(f >= 0 && f <= 1) << warmup << " " << total << " " << step << ": " << f;
      }
    }
  }
}

TEST(Schedule, ConfigIsReadByNameAndChecked) {
  const auto config = io::from_json<ScheduleConfig>(io::parse_json(R"({"kind": "polynomial", "warmup": 0})", "x"), "x");
  EXPECT_EQ(config.kind, ScheduleKind::kPolynomial);
  EXPECT_THROW(io::from_json<ScheduleConfig>(io::parse_json(R"({"warmup": 2})", "x"), "x"), ArgumentError);
}

}  // namespace
}  // namespace fovea::train
