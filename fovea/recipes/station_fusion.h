#pragma once
#include <torch/torch.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "fovea/models/station_fusion.h"

// Row A13 on real stations: attention beside kriging, kernel regression and inverse distances, each station left out.
namespace fovea::recipes {

/// What stations measured, time by time.
struct StationTable {
  std::vector<std::string> names, times;
  torch::Tensor places_km;   // [S,2] or [S,3] f64
  torch::Tensor source;      // [S] int64
  torch::Tensor values;      // [T,S] f64, NaN: missing
  torch::Tensor covariates;  // [T,S,K] f32; K may be 0
  int64_t first_test = 0;    // times from here on are for testing alone
};

/// On which scale errors are normal.
enum class ValueScale {
  kRoot,   ///< the square root of 1 + value: concentrations. The mean is that of the value itself
  kPlain,  ///< the value: temperatures
};

/// PM10 of `scripts/data air`: times are days up to the end of 2004, then test days; source 1 is the federal network (stations DEUB...), whose places are
/// remote; the covariate is the logarithm of the day's mean, which the mean cannot use and the variance can. Errors: IoError, with
/// the station: two values at one time, a place that is not finite.
StationTable read_air(const std::filesystem::path& path);
/// Monthly means of daily maximum temperature in Colorado, of `scripts/data colorado`: 1960 to 1979, then 1980 to 1997 for testing; covariates are the
/// elevation in km, and it times the sine and cosine of the season.
StationTable read_colorado(const std::filesystem::path& path);

struct StationFusionOptions {
  ValueScale scale = ValueScale::kRoot;
  bool elevation = false;       // baselines work on residuals of a line in the first covariate, fitted time by time
  int64_t folds = 5;            // stations of a fold are left out of training
  int64_t nearest = 64;         // others that a station is told by
  int64_t simulated_steps = 1000, real_steps = 1200;
  int64_t test_every = 1;       // test times, every so many
  double kernel_km = 60;
};

/// Errors of values left out, in their unit, on the same values for every method.
struct LeftOutStations {
  int64_t times = 0, values = 0;
  double fusion = 0, kriging = 0, log_kriging = 0, kernel = 0, inverse_distance = 0, mean = 0;
  double fusion_nll = 0, kriging_nll = 0, log_kriging_nll = 0;  // nats a value
  double covered = 0;                                           // percent within the 95 % interval
  // Fusion over kriging and over the kernel, root mean squares, with intervals of 95 % by bootstrap over times.
  struct Ratio {
    double value = 0, low = 0, high = 0;
  } over_kriging, over_kernel;
  Ratio nll_gain;  // kriging (the better of the two) less fusion, nats
};

/// Trains a network a fold and scores it on the fold's stations at the test times, all other stations given. First the mean learns on Gaussian
/// fields drawn at the stations' places with the variogram of the training times (simulated), then offsets, sources and variance learn on the
/// real training times. Kriging has the same variogram. `network`: called with each trained network, for looking at.
/// Errors   ArgumentError: fewer than 5 stations, no time for training or testing.
/// Cost     about a minute on one core for PM10 with every fifth test day
LeftOutStations leave_stations_out(const StationTable& table, const StationFusionOptions& options, uint64_t seed,
                                   const std::function<void(int64_t fold, models::StationFusion&)>& network = {});

}  // namespace fovea::recipes
