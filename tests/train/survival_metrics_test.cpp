#include "fovea/train/survival_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "message_of.h"

namespace fovea::train {
namespace {

// Events at 1, 3, 3; censored at 2, 3, 5.
const SurvivalData kSix{{1, 2, 3, 3, 3, 5}, {true, false, true, true, false, false}};

TEST(KaplanMeier, IsTheProductOfTheSharesThatLiveOn) {
  const KaplanMeier curve(kSix);
  EXPECT_EQ(curve(0.5), 1);
  EXPECT_DOUBLE_EQ(curve(1), 5.0 / 6);
  EXPECT_DOUBLE_EQ(curve(2.9), 5.0 / 6);
  EXPECT_DOUBLE_EQ(curve(3), 5.0 / 6 * 2 / 4);
  EXPECT_DOUBLE_EQ(curve(100), 5.0 / 6 * 2 / 4);
}

TEST(KaplanMeier, OfCensoringCountsEventsOfTheSameTimeAsGone) {
  const KaplanMeier curve(kSix, /*of_censoring=*/true);
  EXPECT_DOUBLE_EQ(curve(1), 1);
  EXPECT_DOUBLE_EQ(curve(2), 4.0 / 5);
  EXPECT_DOUBLE_EQ(curve(3), 4.0 / 5 * 1 / 2);
  EXPECT_DOUBLE_EQ(curve(5), 0);
}

TEST(HarrellConcordance, CountsPairsByHandWithTiesInTimeAndRisk) {
  // Comparable: patient 0 with all five others, 2 with 4 and 5, 3 with 4 and 5.
  const auto c = harrell_concordance(kSix, {9, 8, 7, 1, 1, 2});
  EXPECT_EQ(c.concordant, 5 + 2);
  EXPECT_EQ(c.tied, 1);
  EXPECT_EQ(c.discordant, 1);
  EXPECT_DOUBLE_EQ(c.index, 7.5 / 9);
  EXPECT_TRUE(std::isnan(harrell_concordance({{1, 2}, {false, false}}, {0, 1}).index));
}

TEST(BrierScore, OfThePerfectPredictionIsZeroAndOfOneHalfAQuarter) {
  const SurvivalData data{{1, 2, 3, 4}, {true, true, true, true}};
  const std::vector<double> times = {1.5, 2.5, 3.5};
  std::vector<std::vector<double>> perfect, half(4, std::vector<double>(3, 0.5));
  for (const double t : data.time) perfect.push_back({t > 1.5 ? 1.0 : 0.0, t > 2.5 ? 1.0 : 0.0, t > 3.5 ? 1.0 : 0.0});
  EXPECT_DOUBLE_EQ(brier_score(data, data, perfect, times).integrated, 0);
  EXPECT_DOUBLE_EQ(brier_score(data, data, half, times).integrated, 0.25);
}

TEST(Calibration, GroupsByPredictionAndTakesKaplanMeierWithin) {
  const auto points = calibration(kSix, {0.1, 0.2, 0.3, 0.7, 0.8, 0.9}, 3, 2);
  ASSERT_EQ(points.size(), 2u);
  EXPECT_DOUBLE_EQ(points[0].predicted, 0.2);
  EXPECT_DOUBLE_EQ(points[0].observed, 0);
  EXPECT_DOUBLE_EQ(points[1].observed, 2.0 / 3);
  EXPECT_EQ(points[1].patients, 3);
}

TEST(BootstrapInterval, CoversTheMeanIsTheSameForASeedAndCountsWhatIsNotDefined) {
  const auto mean = [](const std::vector<size_t>& drawn) {
    double sum = 0;
    for (const size_t i : drawn) sum += static_cast<double>(i);
    return sum / static_cast<double>(drawn.size());
  };
  const auto interval = bootstrap_interval(101, mean, 2000, 0.95, 7), again = bootstrap_interval(101, mean, 2000, 0.95, 7);
  const double standard_error = std::sqrt((101.0 * 101 - 1) / 12 / 101);
  EXPECT_NEAR(interval.low, 50 - 1.96 * standard_error, 0.2 * standard_error);
  EXPECT_NEAR(interval.high, 50 + 1.96 * standard_error, 0.2 * standard_error);
  EXPECT_EQ(interval.low, again.low);
  const auto sometimes = bootstrap_interval(3, [&](const auto& drawn) { return drawn[0] == 0 ? std::nan("") : mean(drawn); }, 300);
  EXPECT_GT(sometimes.undefined, 50);
  EXPECT_LT(sometimes.undefined, 150);
}

TEST(SurvivalMetrics, RefusalsSayWhatIsWrong) {
  EXPECT_THAT(message_of([] { KaplanMeier({}); }), testing::HasSubstr("no patients"));
  EXPECT_THAT(message_of([] { harrell_concordance(kSix, {1}); }), testing::HasSubstr("1 risks for 6 patients"));
  EXPECT_THAT(message_of([] { harrell_concordance({{1, NAN}, {true, true}}, {1, 2}); }), testing::HasSubstr("the time of patient 1 is not finite"));
  EXPECT_THAT(message_of([] { dynamic_auc(kSix, kSix, {1, 2, 3, 4, 5, 6}, {3, 2}); }), testing::HasSubstr("times must be at least one and rise"));
  const SurvivalData late{{6, 7}, {true, true}};
  EXPECT_THAT(message_of([&] { uno_concordance(kSix, late, {1, 2}, 10); }), testing::HasSubstr("choose earlier times"));
  EXPECT_THAT(message_of([] { bootstrap_interval(3, [](const auto&) { return std::nan(""); }); }), testing::HasSubstr("not defined for any resample"));
}

}  // namespace
}  // namespace fovea::train
