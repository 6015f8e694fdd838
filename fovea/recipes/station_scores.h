#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "fovea/recipes/station_learning.h"

// Stations left out, one at a time: attention beside kriging, kernel regression, inverse distances and the mean.
namespace fovea::recipes {

/// One value that was left out.
struct LeftOutValue {
  int64_t time = 0, station = 0;
  double value = 0, mean = 0, low = 0, high = 0, kriging = 0;
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
struct LeftOutOptions {
  double kernel_km = 60;
  int64_t every = 1;  // test times, every so many
  uint64_t seed = 0;  // of the bootstrap
  std::vector<LeftOutValue>* each = nullptr;
  std::function<void()> time;  // called after each
};
/// Scores networks[fold_of[s]] on station s at the test times, all other stations given; stations of fold -1 are given,
/// not scored. Baselines see what a line in the first covariate leaves, fitted at each time.
LeftOutStations score_left_out(const StationProblem& problem, std::vector<models::StationFusion>& networks,
                               const std::vector<int64_t>& fold_of, const LeftOutOptions& options);

/// Every station's fold, drawn by the seed.
std::vector<int64_t> station_folds(int64_t stations, int64_t folds, uint64_t seed);

}  // namespace fovea::recipes
