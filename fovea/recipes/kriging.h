#pragma once
#include <torch/torch.h>

#include <utility>
#include <vector>

// Ordinary kriging of stations from each other: the baseline of rows A1 and A13.
namespace fovea::recipes {

/// Exponential variogram nugget + sill (1 - exp(-d / range)), in squares of the values' unit and km.
struct Variogram {
  double nugget = 0, sill = 0, range_km = 0;
  double operator()(double distance_km) const;
};

/// Fitted to all times together by least squares over 20 km bins up to 400 km, weighted by pairs: distances [M,M] in km and values [M] of each time, f64.
Variogram fit_variogram(const std::vector<std::pair<torch::Tensor, torch::Tensor>>& times);

/// Each value predicted from the others: with the inverse of the system of all stations, the error of a left-out value is (K^-1 z)_i / (K^-1)_ii, and
/// its variance -1 / (K^-1)_ii, of what would be measured there (Dubrule 1983).
struct Kriged {
  torch::Tensor mean, variance;  // [M]
};
Kriged krige_others(const torch::Tensor& distance_km, const torch::Tensor& values, const Variogram& variogram);

/// Each value from the others with weights w [M,M] whose diagonal is left out.
torch::Tensor weighted_others(const torch::Tensor& w, const torch::Tensor& values);

/// Between points [M,D]; two stations at one place are a metre apart, or their weights would be infinite.
torch::Tensor station_distances(const torch::Tensor& points);

}  // namespace fovea::recipes
