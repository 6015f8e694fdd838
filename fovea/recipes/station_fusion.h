#pragma once
#include <torch/torch.h>

#include <cstdint>
#include <filesystem>
#include <functional>

#include "fovea/recipes/station_scores.h"

// Row A13 on real stations: attention beside kriging, kernel regression and inverse distances, each station left out.
namespace fovea::recipes {

/// PM10 of `scripts/data air`: times are days up to the end of 2004, then test days; source 1 is the federal network (stations DEUB...), whose places are
/// remote. Errors: as data::read_stations().
data::StationTable read_air(const std::filesystem::path& path);
/// Monthly means of daily maximum temperature in Colorado, of `scripts/data colorado`: 1960 to 1979, then 1980 to 1997 for testing; covariates are the
/// elevation in km, and it times the sine and cosine of the season.
data::StationTable read_colorado(const std::filesystem::path& path);

struct StationFusionOptions {
  ValueScale scale = ValueScale::kRoot;
  int64_t folds = 5;            // stations of a fold are left out of training
  int64_t nearest = 64;         // others that a station is told by
  int64_t simulated_steps = 1000, real_steps = 1200;
  int64_t test_every = 1;       // test times, every so many
  double kernel_km = 60;
};

/// Trains a network a fold and scores it on the fold's stations at the test times, all other stations given. First the mean learns on Gaussian
/// fields drawn at the stations' places with the variogram of the training times (simulated), then offsets, sources and variance learn on the
/// real training times. Kriging has the same variogram. `network`: called with each trained network, for looking at.
/// Errors   as make_station_problem()
/// Cost     about a minute on one core for PM10 with every fifth test day
LeftOutStations leave_stations_out(const data::StationTable& table, const StationFusionOptions& options, uint64_t seed,
                                   const std::function<void(int64_t fold, models::StationFusion&)>& network = {});

}  // namespace fovea::recipes
