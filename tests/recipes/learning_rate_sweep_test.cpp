#include "fovea/recipes/learning_rate_sweep.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>

#include "fovea/core/error.h"

namespace fovea::recipes {
namespace {

const data::FashionMnist* fashion() {
  static const std::optional<data::FashionMnist> images = []() -> std::optional<data::FashionMnist> {
    try {
      return data::read_fashion_mnist();
    } catch (const IoError&) {
      return std::nullopt;
    }
  }();
  return images ? &*images : nullptr;
}
#define SKIP_WITHOUT_FASHION() \
  if (!fashion()) GTEST_SKIP() << "Fashion-MNIST is not there (Debian dataset-fashion-mnist)"

SweepConfig tiny() {
  SweepConfig config;
  config.patch = 14, config.width = 16, config.layers = 1, config.steps = 12, config.batch = 8;
  config.learning_rates = {1e-2, 3e-1};
  return config;
}

TEST(LearningRateSweep, SensitivityIsTheMeanExcessLossAndADivergedRunCountsAsTheFirstLoss) {
  LearningRateSweep sweep;
  sweep.first_loss = 2;
  const auto add = [&](uint64_t seed, double loss) { sweep.runs.push_back({true, 0.1, seed, loss, 0.5, {}}); };
  add(0, 1), add(0, 1.5), add(0, std::numeric_limits<double>::infinity());  // (0 + 0.5 + 1) / 3
  add(1, 1.8), add(1, 1.8), add(1, 7);                                      // (0 + 0 + 0.2) / 3
  EXPECT_NEAR(sweep.sensitivity(true), (0.5 + 0.2 / 3) / 2, 1e-12);
}

TEST(LearningRateSweep, GivesTheSameNumbersOnEveryRun) {
  SKIP_WITHOUT_FASHION();
  const auto once = sweep_learning_rates(tiny(), *fashion()), again = sweep_learning_rates(tiny(), *fashion());
  ASSERT_EQ(once.runs.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(once.runs[i].loss, again.runs[i].loss);
    EXPECT_EQ(once.runs[i].largest_score, again.runs[i].largest_score);
    EXPECT_EQ(once.runs[i].largest_score.back().first, 11);
  }
}

TEST(LearningRateSweep, BothVariantsStartFromTheSameWeightsAndQkNormBoundsTheirFirstScores) {
  SKIP_WITHOUT_FASHION();
  SweepConfig config = tiny();
  config.learning_rates = {0};
  const auto sweep = sweep_learning_rates(config, *fashion());
  EXPECT_NEAR(sweep.runs[0].loss, std::log(10.0), 0.5);
  for (const auto& [step, score] : sweep.runs[1].largest_score) EXPECT_LE(score, std::sqrt(16.0) * (1 + 1e-5));
}

TEST(LearningRateSweep, TheTemperatureOfTrainedActivationsIsThatOfTheirDeviations) {
  SKIP_WITHOUT_FASHION();
  const ActivationTemperature t = temperature_of_activations(tiny(), *fashion());
  EXPECT_LE(t.identity, 1e-5);
  ASSERT_EQ(t.temperatures.size(), 1u);
  EXPECT_GT(t.temperatures[0], 0);
}

}  // namespace
}  // namespace fovea::recipes
