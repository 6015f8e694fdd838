#include "fovea/train/breslow_hazard.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "fovea/core/error.h"

namespace fovea::train {

double BreslowHazard::survival(double time, double risk) const {
  const auto after = std::upper_bound(times.begin(), times.end(), time);
  if (after == times.begin()) return 1;
  return std::exp(-cumulative[size_t(after - times.begin()) - 1] * std::exp(risk));
}

BreslowHazard breslow_hazard(const SurvivalData& data, const std::vector<double>& risk) {
  const size_t n = data.size();
  if (risk.size() != n || data.event.size() != n)
    throw ArgumentError("breslow hazard: " + std::to_string(risk.size()) + " risks and " + std::to_string(data.event.size()) + " events of " + std::to_string(n) + " patients");
  for (const double r : risk)
    if (!std::isfinite(r)) throw ArgumentError("breslow hazard: a risk is not finite");
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return data.time[a] > data.time[b]; });
  // From the last time back, so that who is at risk grows.
  double at_risk = 0;
  std::vector<double> times, steps;
  for (size_t i = 0; i < n;) {
    const double time = data.time[order[i]];
    double events = 0;
    for (; i < n && data.time[order[i]] == time; ++i) at_risk += std::exp(risk[order[i]]), events += data.event[order[i]];
    if (events > 0) times.push_back(time), steps.push_back(events / at_risk);
  }
  std::reverse(times.begin(), times.end()), std::reverse(steps.begin(), steps.end());
  std::partial_sum(steps.begin(), steps.end(), steps.begin());
  return {std::move(times), std::move(steps)};
}

}  // namespace fovea::train
