#pragma once
#include <torch/torch.h>

namespace fovea::data {

/// A made-up field over two axes of space and time, all in [0, 1]: a Gaussian process of mean 0 and variance 1 with covariance
/// (1 + r) exp(-r) exp(-|dt| / span), r = sqrt(3) |dx| / range (Matern 3/2 in space, exponential in time).
struct StationFieldOptions {
  int64_t stations = 48, targets = 16;
  int64_t grid = 0;  // g > 0: g x g cells of a satellite at one time, each the mean of the field at 4 places
  double range = 0.6, span = 1;
  double errors[2] = {0.1, 0.5};  // of the two kinds of station; each error is told, times exp(normal(0, 0.3))
  double missing = 0.2;           // share of the measurements that are NaN
  double grid_bias = 0.7, grid_error = 0.3;
};

/// Measurements are stations, then cells; sources 0 and 1 are kinds of station, 2 is the satellite.
struct StationField {
  torch::Tensor places, source, value, error;  // [B,M,3], [B,M] int64, [B,M], [B,M]; f32
  torch::Tensor target_places, truth;          // [B,N,3], [B,N]
  torch::Tensor exact_mean, exact_variance;    // [B,N]: the posterior of the process itself, which knows everything but the truth
};

/// Draws `count` fields. `posterior`: computes it too.
/// Cost     O(count (M + N)^3)
/// Source   Rasmussen & Williams 2006, equations 2.22 to 2.24
StationField draw_station_fields(const StationFieldOptions& options, int64_t count, bool posterior, at::Generator generator);

}  // namespace fovea::data
