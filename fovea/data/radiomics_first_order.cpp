#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "fovea/data/radiomics_region.h"

namespace fovea::data {

namespace {
// Linear between the two nearest of sorted values; share in [0, 1].
double percentile(const std::vector<double>& sorted, double share) {
  const double place = share * double(sorted.size() - 1);
  const auto below = size_t(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - double(below)) * (sorted[above] - sorted[below]);
}

// Mean of f over values.
template <class F>
double mean_of(const std::vector<double>& values, F&& f) {
  double sum = 0;
  for (const double v : values) sum += f(v);
  return sum / double(values.size());
}
}  // namespace

std::vector<double> first_order_features(const Region& region, const RadiomicsOptions& options) {
  std::vector<double> x;
  x.reserve(size_t(region.voxels));
  for (size_t i = 0; i < region.inside.size(); ++i)
    if (region.inside[i]) x.push_back(region.intensity[i]);
  std::sort(x.begin(), x.end());
  const double n = double(x.size());
  const double mean = mean_of(x, [](double v) { return v; });
  const auto moment = [&](int order) { return mean_of(x, [&](double v) { return std::pow(v - mean, order); }); };
  const double variance = moment(2);
  const double p10 = percentile(x, 0.1), p90 = percentile(x, 0.9);
  const std::vector<double> robust(std::lower_bound(x.begin(), x.end(), p10),
                                   std::upper_bound(x.begin(), x.end(), p90));
  const double robust_mean = mean_of(robust, [](double v) { return v; });
  double energy = 0;
  for (const double v : x) energy += (v + options.energy_shift) * (v + options.energy_shift);
  const double voxel_mm3 = region.spacing_mm[0] * region.spacing_mm[1] * region.spacing_mm[2];

  double entropy = 0, uniformity = 0;
  const std::vector<double> edges = bin_edges(x.front(), x.back(), options);
  for (auto begin = x.begin(); begin != x.end();) {  // values are sorted: bin by bin
    const auto edge = std::upper_bound(edges.begin(), edges.end(), *begin);
    const auto end = edge == edges.end() ? x.end() : std::lower_bound(begin, x.end(), *edge);
    const double p = double(end - begin) / n;
    entropy -= p * std::log2(p + std::numeric_limits<double>::epsilon()), uniformity += p * p;
    begin = end;
  }
  return {p10,
          p90,
          energy,
          entropy,
          percentile(x, 0.75) - percentile(x, 0.25),
          variance > 0 ? moment(4) / (variance * variance) : 0,
          x.back(),
          mean_of(x, [&](double v) { return std::abs(v - mean); }),
          mean,
          percentile(x, 0.5),
          x.front(),
          x.back() - x.front(),
          mean_of(robust, [&](double v) { return std::abs(v - robust_mean); }),
          std::sqrt(energy / n),
          variance > 0 ? moment(3) / std::pow(variance, 1.5) : 0,
          energy * voxel_mm3,
          uniformity,
          variance};
}

}  // namespace fovea::data
