#include "fovea/recipes/kernel_regression.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "fovea/core/error.h"
#include "fovea/recipes/air_stations.h"
#include "fovea/recipes/kernel_experiments.h"

namespace fovea::recipes {
namespace {

using testing::HasSubstr;

const auto kF64 = torch::TensorOptions(torch::kFloat64);
double largest(const torch::Tensor& t) { return t.abs().max().item<double>(); }

Samples line_samples() {
  const auto x = torch::tensor({0.0, 1.0, 3.0}, kF64).unsqueeze(1);
  return {x, torch::tensor({1.0, 2.0, 10.0}, kF64)};
}

TEST(KernelRegression, MatchesAHandComputedCase) {
  const double h = 1;
  double sum = 0, weighted = 0;
  for (const auto& [x, y] : {std::pair(0.0, 1.0), {1.0, 2.0}, {3.0, 10.0}}) {
    const double w = std::exp(-(x - 0.5) * (x - 0.5) / 2);
    sum += w, weighted += w * y;
  }
  const auto value = kernel_regression(line_samples(), torch::full({1, 1}, 0.5, kF64), {h});
  EXPECT_NEAR(value.item<double>(), weighted / sum, 1e-14);
}

TEST(KernelRegression, PlanesReproducePlanesUpToTheBorder) {
  auto generator = at::detail::createCPUGenerator(1);
  const auto points = torch::rand({60, 2}, generator, kF64);
  const auto plane = [](const torch::Tensor& x) { return 3 + 2 * x.select(1, 0) - 5 * x.select(1, 1); };
  const auto x = torch::tensor({{0.0, 0.0}, {1.0, 1.0}, {0.5, 0.2}}, kF64);
  const Samples s{points, plane(points)};
  EXPECT_LE(largest(kernel_regression(s, x, {0.2, 0.3}, LocalFit::kPlane) - plane(x)), 1e-6);
  EXPECT_GE(largest(kernel_regression(s, x, {0.2, 0.3}) - plane(x)), 0.1);
}

TEST(KernelRegression, DoesNotFeelAFarOrigin) {
  const Samples near = textbook_samples(80, 3), far{near.points + 1e6, near.values};
  const auto x = torch::linspace(0, 5, 11, kF64).unsqueeze(1);
  EXPECT_LE(largest(kernel_regression(near, x, {0.2}) - kernel_regression(far, x + 1e6, {0.2})), 1e-8);
}

TEST(KernelRegression, FarFromAllSamplesTheNearestDecides) {
  const auto value = kernel_regression(line_samples(), torch::tensor({{-1e6}, {1e6}}, kF64), {0.01});
  EXPECT_EQ(value[0].item<double>(), 1);
  EXPECT_EQ(value[1].item<double>(), 10);
}

TEST(KernelRegression, AttentionsQueriesAndKeysAreTheOnesStated) {
  const auto points = torch::tensor({{-1.0, 2.0}, {1.0, -2.0}}, kF64);  // their mean is the origin
  const KernelAttention a = kernel_attention(points, points, {0.5});
  EXPECT_EQ(a.scale, 4);
  EXPECT_TRUE(torch::equal(a.q, torch::tensor({{-1.0, 2.0, 1.0}, {1.0, -2.0, 1.0}}, kF64)));
  EXPECT_TRUE(torch::equal(a.k, torch::tensor({{-1.0, 2.0, -2.5}, {1.0, -2.0, -2.5}}, kF64)));
}

TEST(KernelRegression, LeavesOutASampleThatIsAloneInItsBandwidth) {
  // The closed form would be 0/0 at x = 3: the other two are a hundred bandwidths away.
  for (const LocalFit fit : {LocalFit::kConstant, LocalFit::kPlane}) {
    const auto left_out = leave_one_out(line_samples(), {0.02}, fit);
    EXPECT_NEAR(left_out[2].item<double>(), 2, 1e-6);
    EXPECT_NEAR(left_out[0].item<double>(), 2, 1e-6);
  }
}

TEST(KernelRegression, TheBandCoversTheCurveAboutAsOftenAsItSays) {
  const double percent = band_coverage(10, 0);
  EXPECT_GT(percent, 88);
  EXPECT_LT(percent, 99);
}

TEST(KernelRegression, LearnsTheBandwidthThatLeaveOneOutChooses) {
  for (const uint64_t seed :
       {4, 16}) {  // 16: an error with two valleys, where a wide start alone ends in the wrong one
    const LearnedBandwidth h = compare_bandwidths(50, seed);
    EXPECT_NEAR(h.learned / h.chosen, 1, 0.15) << seed;
  }
}

TEST(KernelRegression, LearnsWhichAxisMatters) {
  const auto h = learn_relevant_axis(2);
  EXPECT_GT(h[1], 5 * h[0]);
}

TEST(KernelRegression, RefusesWhatCannotBeRegressed) {
  const auto refusal = [](const std::function<void()>& f) -> std::string {
    try {
      f();
    } catch (const ArgumentError& e) {
      return e.what();
    }
    return "accepted";
  };
  const Samples s = line_samples();
  const auto x = torch::zeros({1, 1}, kF64);
  EXPECT_THAT(refusal([&] { kernel_regression(s, x, {0}); }), HasSubstr("bandwidth 0.000000, expected a positive"));
  EXPECT_THAT(refusal([&] { kernel_regression(s, x, {1, 2}); }), HasSubstr("2 bandwidths, expected 1 or 1"));
  EXPECT_THAT(refusal([&] { kernel_regression(s, torch::zeros({1, 2}, kF64), {1}); }), HasSubstr("expected [N,1]"));
  EXPECT_THAT(refusal([&] {
                kernel_regression({s.points, s.values.slice(0, 1)}, x, {1});
              }),
              HasSubstr("points [3,1] and values [2]"));
  EXPECT_THAT(refusal([&] {
                kernel_regression({s.points.slice(0, 2), s.values.slice(0, 2)}, x, {1});
              }),
              HasSubstr("1 samples, expected at least 2"));
  EXPECT_THAT(refusal([&] { kernel_regression({s.points, s.values * NAN}, x, {1}); }), HasSubstr("not finite"));
  EXPECT_THAT(refusal([&] {
                choose_bandwidth({torch::ones({4, 1}, kF64), torch::rand({4}, kF64)});
              }),
              HasSubstr("all samples lie at one place"));
}

// Two days of five stations, the value rising by one a degree of longitude.
std::filesystem::path small_table() {
  const auto path = std::filesystem::path(testing::TempDir()) / "air_small.csv";
  std::ofstream file(path);
  file << "date,station,longitude_deg,latitude_deg,pm10_ug_m3\n";
  for (const int day : {1, 2})
    for (int s = 0; s < 5; ++s) file << "2005-01-0" << day << ",S" << s << "," << 8 + s << ",50," << 10 + s << "\n";
  return path;
}

TEST(AirStations, LeavesEachStationOutOfItsDay) {
  const StationDays data = read_station_days(small_table(), 3);
  ASSERT_EQ(data.days.size(), 2u);
  EXPECT_EQ(data.names.size(), 5u);
  const LeftOut r = leave_stations_out(data, /*bandwidth_km=*/20);
  EXPECT_EQ(r.values, 10);
  // The mean of the others misses by 2.5, 1.25, 0, 1.25, 2.5.
  EXPECT_NEAR(r.daily_mean, std::sqrt((2 * 6.25 + 2 * 1.5625) / 5), 1e-12);
  // Neighbours lie 71.5 km apart: the inner stations lie between two equal neighbours, the outer ones see one.
  EXPECT_NEAR(r.regression, std::sqrt(2.0 / 5), 1e-3);
  EXPECT_LT(r.inverse_distance, r.daily_mean);
  EXPECT_LT(r.kriging, r.daily_mean);
}

TEST(AirStations, RefuseATableWithoutEnoughStations) { EXPECT_THROW(read_station_days(small_table(), 30), IoError); }

}  // namespace
}  // namespace fovea::recipes
