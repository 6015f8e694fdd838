#include "fovea/recipes/kriging.h"

#include <cmath>

namespace fovea::recipes {

namespace {
constexpr double kBinKm = 20, kFarKm = 400;
}

double Variogram::operator()(double distance_km) const { return nugget + sill * (1 - std::exp(-distance_km / range_km)); }

torch::Tensor weighted_others(const torch::Tensor& w, const torch::Tensor& values) {
  const auto others = w.clone().fill_diagonal_(0);
  return torch::matmul(others, values) / others.sum(1);
}

Kriged krige_others(const torch::Tensor& distance, const torch::Tensor& values, const Variogram& variogram) {
  const int64_t M = values.numel();
  auto system = torch::ones({M + 1, M + 1}, distance.options());
  const auto semivariance = variogram.nugget + variogram.sill * (1 - (-distance / variogram.range_km).exp());
  system.slice(0, 0, M).slice(1, 0, M).copy_(semivariance).fill_diagonal_(0);
  system[M][M] = 0;
  const auto inverse = torch::linalg_inv(system).slice(0, 0, M).slice(1, 0, M);
  return {values - torch::matmul(inverse, values) / inverse.diagonal(), -1 / inverse.diagonal()};
}

torch::Tensor station_distances(const torch::Tensor& points) {
  return torch::cdist(points, points, 2.0, /*compute_mode=*/2).clamp_min(1e-3);
}

Variogram fit_variogram(const std::vector<std::pair<torch::Tensor, torch::Tensor>>& times) {
  constexpr int kBins = int(kFarKm / kBinKm);
  std::vector<double> pairs(kBins), distance(kBins), half_square(kBins);
  for (const auto& [d, values] : times) {
    const auto d_at = d.accessor<double, 2>();
    const auto v = values.accessor<double, 1>();
    for (int64_t i = 0; i < v.size(0); ++i)
      for (int64_t j = 0; j < i; ++j) {
        if (d_at[i][j] >= kFarKm) continue;
        const int bin = int(d_at[i][j] / kBinKm);
        ++pairs[bin], distance[bin] += d_at[i][j], half_square[bin] += (v[i] - v[j]) * (v[i] - v[j]) / 2;
      }
  }
  // For each range the best nugget and sill are a weighted line, kept at or above 0; the best range is searched.
  Variogram best;
  double least = INFINITY;
  for (double range = 10; range <= 2000; range *= 1.05) {
    double w = 0, wx = 0, wy = 0, wxx = 0, wxy = 0, wyy = 0;
    for (int b = 0; b < kBins; ++b) {
      if (pairs[b] == 0) continue;
      const double n = pairs[b], x = 1 - std::exp(-distance[b] / n / range), y = half_square[b] / n;
      w += n, wx += n * x, wy += n * y, wxx += n * x * x, wxy += n * x * y, wyy += n * y * y;
    }
    double sill = (w * wxy - wx * wy) / (w * wxx - wx * wx), nugget = (wy - sill * wx) / w;
    if (nugget < 0) nugget = 0, sill = wxy / wxx;
    const double error =
        wyy - 2 * nugget * wy - 2 * sill * wxy + nugget * nugget * w + 2 * nugget * sill * wx + sill * sill * wxx;
    if (sill > 0 && error < least) least = error, best = {nugget, sill, range};
  }
  return best;
}

}  // namespace fovea::recipes
