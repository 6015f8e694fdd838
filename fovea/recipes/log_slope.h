#pragma once
#include <cmath>
#include <vector>

namespace fovea::recipes {

/// Slope of log y over log x by least squares: the exponent of a power law. As many y as x, all positive.
inline double log_slope(const std::vector<double>& x, const std::vector<double>& y) {
  double mx = 0, my = 0, xx = 0, xy = 0;
  for (size_t i = 0; i < x.size(); ++i) mx += std::log(x[i]) / x.size(), my += std::log(y[i]) / y.size();
  for (size_t i = 0; i < x.size(); ++i) {
    const double dx = std::log(x[i]) - mx;
    xx += dx * dx, xy += dx * (std::log(y[i]) - my);
  }
  return xy / xx;
}

}  // namespace fovea::recipes
