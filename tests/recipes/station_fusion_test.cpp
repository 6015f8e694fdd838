#include "fovea/recipes/station_fusion.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "fovea/core/error.h"
#include "fovea/recipes/kriging.h"
#include "fovea/recipes/station_field.h"

namespace fovea::recipes {
namespace {

const double kNan = std::numeric_limits<double>::quiet_NaN();

// Stations on a square of 400 km whose values are waves that move, on top of 20.
data::StationTable made_up_table(int64_t stations, int64_t times) {
  torch::manual_seed(11);
  data::StationTable table;
  for (int64_t s = 0; s < stations; ++s) table.names.push_back("s" + std::to_string(s));
  for (int64_t t = 0; t < times; ++t) table.times.push_back("t" + std::to_string(t));
  table.places_km = 400 * torch::rand({stations, 2}, torch::kFloat64);
  table.source = torch::zeros({stations}, torch::kInt64), table.covariates = torch::zeros({times, stations, 0});
  const auto phase = torch::arange(times, torch::kFloat64).unsqueeze(1);
  table.values = 20 + 8 * ((table.places_km.select(1, 0) / 60).unsqueeze(0) + phase).sin() + torch::randn({times, stations}, torch::kFloat64);
  table.first_test = times / 2;
  return table;
}

StationFusionOptions quick() {
  StationFusionOptions options;
  options.folds = 2, options.simulated_steps = 60, options.real_steps = 60, options.scale = ValueScale::kPlain;
  return options;
}

TEST(StationField, AttentionComesNearTheExactPosteriorAfterAFewSteps) {
  FieldLearning options;
  options.field.stations = 24, options.layers = 2, options.steps = 150;
  const auto s = learn_station_field(options, 100).score;
  EXPECT_LE(s.error, 1.15 * s.exact);
  EXPECT_LE(s.error, s.mean_of_stations);
  EXPECT_GE(s.error, s.exact) << "nothing beats the posterior on so many targets";
  EXPECT_NEAR(s.covered, 95, 5);
  EXPECT_NEAR(s.exact_covered, 95, 1.5);
}

TEST(StationField, IsTheSameForTheSameSeed) {
  FieldLearning options;
  options.field.stations = 8, options.steps = 5;
  EXPECT_EQ(learn_station_field(options, 3).score.nll, learn_station_field(options, 3).score.nll);
}

TEST(Kriging, KrigingInOneSolveIsEachStationLeftOut) {
  torch::manual_seed(3);
  const auto points = 300 * torch::rand({12, 2}, torch::kFloat64), values = torch::randn({12}, torch::kFloat64);
  const auto d = station_distances(points);
  const Variogram variogram{0.2, 1, 120};
  const Kriged kriged = krige_others(d, values, variogram);
  const auto semivariance = [&](const torch::Tensor& h) { return variogram.nugget + variogram.sill * (1 - (-h / variogram.range_km).exp()); };
  for (int64_t i = 0; i < 12; ++i) {
    const auto others = torch::cat({torch::arange(i), torch::arange(i + 1, 12)});
    auto system = torch::ones({12, 12}, torch::kFloat64), right = torch::ones({12}, torch::kFloat64);
    system.slice(0, 0, 11).slice(1, 0, 11).copy_(semivariance(d.index_select(0, others).index_select(1, others))).fill_diagonal_(0);
    system[11][11] = 0;
    right.slice(0, 0, 11) = semivariance(d[i].index_select(0, others));
    const auto weights = torch::linalg_solve(system, right, /*left=*/true);
    EXPECT_NEAR(kriged.mean[i].item<double>(), weights.slice(0, 0, 11).dot(values.index_select(0, others)).item<double>(), 1e-9);
    EXPECT_NEAR(kriged.variance[i].item<double>(), weights.dot(right).item<double>(), 1e-9);
  }
}

TEST(StationFusion, TellsLeftOutStationsFromTheirNeighbours) {
  const auto r = leave_stations_out(made_up_table(40, 40), quick(), 1);
  EXPECT_EQ(r.values, 40 * 20);
  EXPECT_LT(r.fusion, 0.8 * r.mean);
  EXPECT_NEAR(r.over_kriging.value, r.fusion / r.kriging, 1e-9);
  EXPECT_LE(r.over_kriging.low, r.over_kriging.value);
  EXPECT_GE(r.over_kriging.high, r.over_kriging.value);
}

TEST(StationFusion, TimesWithoutStationsAreLeftAlone) {
  auto table = made_up_table(10, 20);
  table.values[12].fill_(kNan), table.values[15].slice(0, 0, 7).fill_(kNan), table.values[3][2] = kNan;
  table.places_km[4] = table.places_km[5];  // two stations at one place
  auto options = quick();
  options.simulated_steps = options.real_steps = 5;
  const auto r = leave_stations_out(table, options, 1);
  EXPECT_EQ(r.times, 8);
  EXPECT_EQ(r.values, 80);
  EXPECT_TRUE(std::isfinite(r.fusion) && std::isfinite(r.fusion_nll) && std::isfinite(r.kriging));
}

TEST(StationFusion, ReadsTablesWithGapsAndRefusesTwoValuesOfAStation) {
  const std::filesystem::path path = testing::TempDir() + "air_of_test.csv";
  const std::string head = "date,station,longitude_deg,latitude_deg,pm10_ug_m3\n", rows = "2004-12-31,DEUB001,9,50,12\n2005-01-02,DENI002,10,51,\n2005-01-02,DEUB001,9,50,14\n";
  std::ofstream(path) << head << rows;
  const data::StationTable table = read_air(path);
  EXPECT_EQ(table.first_test, 1);
  EXPECT_EQ(table.source[0].item<int64_t>(), 1);
  EXPECT_TRUE(std::isnan(table.values[1][1].item<double>()));
  EXPECT_EQ(table.values[1][0].item<double>(), 14);
  std::ofstream(path) << head << rows << "2005-01-02,DEUB001,9,50,15\n";
  EXPECT_THROW(read_air(path), IoError);
  std::ofstream(path) << head << rows << "2005-01-02,DEUB003,NA,50,15\n";
  EXPECT_THROW(read_air(path), IoError);
}

TEST(StationFusion, RefusesTablesThatCannotBeLearnt) {
  EXPECT_THROW(leave_stations_out(made_up_table(4, 20), quick(), 1), ArgumentError);
  auto table = made_up_table(10, 20);
  table.values.slice(0, 10).fill_(kNan);
  EXPECT_THROW(leave_stations_out(table, quick(), 1), ArgumentError);
}

}  // namespace
}  // namespace fovea::recipes
