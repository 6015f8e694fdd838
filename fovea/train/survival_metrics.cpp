#include "fovea/train/survival_metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"

namespace fovea::train {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

void check(const char* metric, const SurvivalData& data) {
  if (data.time.empty()) throw ArgumentError(std::string(metric) + ": no patients");
  if (data.event.size() != data.time.size())
    throw ArgumentError(std::string(metric) + ": " + std::to_string(data.time.size()) + " times and " + std::to_string(data.event.size()) + " events, expected as many");
  for (size_t i = 0; i < data.size(); ++i)
    if (!std::isfinite(data.time[i])) throw ArgumentError(std::string(metric) + ": the time of patient " + std::to_string(i) + " is not finite; leave the patient out");
}

void check_length(const char* metric, const char* what, size_t found, size_t patients) {
  if (found != patients)
    throw ArgumentError(std::string(metric) + ": " + std::to_string(found) + " " + what + " for " + std::to_string(patients) + " patients");
}

void check_times(const char* metric, const std::vector<double>& times) {
  if (times.empty() || !std::is_sorted(times.begin(), times.end(), std::less_equal<>()))
    throw ArgumentError(std::string(metric) + ": times must be at least one and rise");
}

/// 1 / G(t) of an event.
double inverse_censoring(const char* metric, const KaplanMeier& censoring, double time) {
  const double probability = censoring(time);
  if (probability <= 0)
    throw ArgumentError(std::string(metric) + ": nobody of the training data is followed up to time " + std::to_string(time) + "; choose earlier times");
  return 1 / probability;
}

std::vector<size_t> order_by(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  return order;
}

/// Sums over pairs; weight(i) of the patient who had the event, 0 to leave its pairs out.
template <class Weight>
Concordance concordance(const SurvivalData& data, const std::vector<double>& risk, const Weight& weight) {
  constexpr double kTied = 1e-8;
  Concordance c;
  for (size_t i = 0; i < data.size(); ++i) {
    const double w = data.event[i] ? weight(i) : 0;
    if (w == 0) continue;
    for (size_t j = 0; j < data.size(); ++j) {
      const bool outlived = data.time[j] > data.time[i] || (data.time[j] == data.time[i] && !data.event[j]);
      if (!outlived) continue;
      const double difference = risk[i] - risk[j];
      (std::abs(difference) <= kTied ? c.tied : difference > 0 ? c.concordant : c.discordant) += w;
    }
  }
  c.index = c.comparable() > 0 ? (c.concordant + c.tied / 2) / c.comparable() : kNan;
  return c;
}

/// Area under the curve through (false positive, true positive) rates: cases against controls, ties half.
double weighted_auc(const std::vector<double>& risk, const std::vector<double>& case_weight, const std::vector<bool>& control) {
  auto order = order_by(risk);
  double controls_below = 0, controls = 0, cases = 0, area = 0;
  for (size_t first = 0; first < order.size();) {
    size_t end = first;
    double tied_controls = 0, tied_cases = 0;
    for (; end < order.size() && risk[order[end]] == risk[order[first]]; ++end) {
      tied_controls += control[order[end]], tied_cases += case_weight[order[end]];
    }
    area += tied_cases * (controls_below + tied_controls / 2);
    controls_below += tied_controls, controls += tied_controls, cases += tied_cases;
    first = end;
  }
  return controls > 0 && cases > 0 ? area / (controls * cases) : kNan;
}

}  // namespace

KaplanMeier::KaplanMeier(const SurvivalData& data, bool of_censoring) {
  check("kaplan_meier", data);
  const auto order = order_by(data.time);
  double probability = 1;
  for (size_t first = 0; first < order.size();) {
    size_t end = first, events = 0;
    for (; end < order.size() && data.time[order[end]] == data.time[order[first]]; ++end) events += data.event[order[end]];
    const size_t ended = of_censoring ? end - first - events : events;
    const size_t at_risk = order.size() - first - (of_censoring ? events : 0);
    if (ended > 0) probability *= 1 - static_cast<double>(ended) / static_cast<double>(at_risk);
    times_.push_back(data.time[order[first]]);
    probabilities_.push_back(probability);
    first = end;
  }
}

double KaplanMeier::operator()(double time) const {
  const auto after = std::upper_bound(times_.begin(), times_.end(), time);
  return after == times_.begin() ? 1 : probabilities_[after - times_.begin() - 1];
}

Concordance harrell_concordance(const SurvivalData& data, const std::vector<double>& risk) {
  check("harrell_concordance", data);
  check_length("harrell_concordance", "risks", risk.size(), data.size());
  return concordance(data, risk, [](size_t) { return 1.0; });
}

Concordance uno_concordance(const SurvivalData& train, const SurvivalData& test, const std::vector<double>& risk, double until) {
  check("uno_concordance", test);
  check_length("uno_concordance", "risks", risk.size(), test.size());
  const KaplanMeier censoring(train, /*of_censoring=*/true);
  return concordance(test, risk, [&](size_t i) {
    if (test.time[i] >= until) return 0.0;
    const double w = inverse_censoring("uno_concordance", censoring, test.time[i]);
    return w * w;
  });
}

DynamicAuc dynamic_auc(const SurvivalData& train, const SurvivalData& test, const std::vector<double>& risk, const std::vector<double>& times) {
  check("dynamic_auc", test);
  check_length("dynamic_auc", "risks", risk.size(), test.size());
  check_times("dynamic_auc", times);
  const KaplanMeier censoring(train, /*of_censoring=*/true), alive(test);
  DynamicAuc result;
  double before = 1, sum = 0;
  for (const double t : times) {
    std::vector<double> case_weight(test.size(), 0.0);
    std::vector<bool> control(test.size());
    for (size_t i = 0; i < test.size(); ++i) {
      control[i] = test.time[i] > t;
      if (test.event[i] && !control[i]) case_weight[i] = inverse_censoring("dynamic_auc", censoring, test.time[i]);
    }
    result.auc.push_back(weighted_auc(risk, case_weight, control));
    sum += result.auc.back() * (before - alive(t));
    before = alive(t);
  }
  result.mean = before < 1 ? sum / (1 - before) : kNan;
  return result;
}

BrierScore brier_score(const SurvivalData& train, const SurvivalData& test, const std::vector<std::vector<double>>& survival,
                       const std::vector<double>& times) {
  check("brier_score", test);
  check_length("brier_score", "predictions", survival.size(), test.size());
  check_times("brier_score", times);
  for (const auto& curve : survival) check_length("brier_score", "predictions of a patient", curve.size(), times.size());
  const KaplanMeier censoring(train, /*of_censoring=*/true);
  // Where nobody is followed up, nothing is known: such patients weigh nothing.
  const auto weight = [&](double time) { return censoring(time) > 0 ? 1 / censoring(time) : 0.0; };
  BrierScore result;
  for (size_t k = 0; k < times.size(); ++k) {
    double sum = 0;
    for (size_t i = 0; i < test.size(); ++i) {
      const double s = survival[i][k];
      if (test.time[i] > times[k]) sum += (1 - s) * (1 - s) * weight(times[k]);
      else if (test.event[i]) sum += s * s * weight(test.time[i]);
    }
    result.score.push_back(sum / static_cast<double>(test.size()));
  }
  for (size_t k = 1; k < times.size(); ++k) result.integrated += (times[k] - times[k - 1]) * (result.score[k] + result.score[k - 1]) / 2;
  result.integrated = times.size() > 1 ? result.integrated / (times.back() - times.front()) : kNan;
  return result;
}

std::vector<CalibrationPoint> calibration(const SurvivalData& data, const std::vector<double>& survival, double time, int64_t groups) {
  check("calibration", data);
  check_length("calibration", "predictions", survival.size(), data.size());
  if (groups < 1 || groups > static_cast<int64_t>(data.size()))
    throw ArgumentError("calibration: " + std::to_string(groups) + " groups of " + std::to_string(data.size()) + " patients");
  const auto order = order_by(survival);
  std::vector<CalibrationPoint> points;
  for (int64_t g = 0; g < groups; ++g) {
    const size_t first = order.size() * g / groups, end = order.size() * (g + 1) / groups;
    SurvivalData members;
    CalibrationPoint point;
    for (size_t i = first; i < end; ++i) {
      members.time.push_back(data.time[order[i]]);
      members.event.push_back(data.event[order[i]]);
      point.predicted += survival[order[i]];
    }
    point.patients = static_cast<int64_t>(end - first);
    point.predicted /= static_cast<double>(point.patients);
    point.observed = KaplanMeier(members)(time);
    points.push_back(point);
  }
  return points;
}

BootstrapInterval bootstrap_interval(size_t patients, const std::function<double(const std::vector<size_t>&)>& statistic,
                                     int64_t resamples, double level, uint64_t seed) {
  if (patients == 0 || resamples < 1 || !(level > 0 && level < 1))
    throw ArgumentError("bootstrap_interval: expected patients, resamples and a level between 0 and 1");
  BootstrapInterval interval;
  std::vector<double> values;
  std::vector<size_t> drawn(patients);
  for (int64_t r = 0; r < resamples; ++r) {
    Rng rng(seed, 0, static_cast<uint32_t>(r));
    for (size_t& i : drawn) i = rng.below(patients);
    const double value = statistic(drawn);
    std::isnan(value) ? ++interval.undefined : (values.push_back(value), 0);
  }
  if (values.empty()) throw ArgumentError("bootstrap_interval: the statistic is not defined for any resample");
  std::sort(values.begin(), values.end());
  const auto quantile = [&](double q) {
    const double at = q * static_cast<double>(values.size() - 1);
    const size_t below = static_cast<size_t>(at), above = std::min(below + 1, values.size() - 1);
    return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
  };
  interval.low = quantile((1 - level) / 2), interval.high = quantile((1 + level) / 2);
  return interval;
}

}  // namespace fovea::train
