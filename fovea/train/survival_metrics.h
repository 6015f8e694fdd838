#pragma once
#include <cstdint>
#include <functional>
#include <vector>

namespace fovea::train {

/// What is known of patients: time of the event, or of the last contact where event is false.
struct SurvivalData {
  std::vector<double> time;
  std::vector<bool> event;
  size_t size() const { return time.size(); }
};

/// The values, or the patients, of these indices: a resample, or a group.
template <class T>
std::vector<T> select(const std::vector<T>& all, const std::vector<size_t>& indices) {
  std::vector<T> some;
  some.reserve(indices.size());
  for (const size_t i : indices) some.push_back(all[i]);
  return some;
}
inline SurvivalData select(const SurvivalData& all, const std::vector<size_t>& indices) {
  return {select(all.time, indices), select(all.event, indices)};
}

/// Kaplan-Meier's curve as a right-continuous step function: 1 before the first time.
class KaplanMeier {
 public:
  /// Of the event, or, with `of_censoring`, of being censored (an event at the same time comes first).
  /// Errors  ArgumentError without patients, on unequal lengths or a time that is not finite.
  explicit KaplanMeier(const SurvivalData& data, bool of_censoring = false);
  double operator()(double time) const;
  const std::vector<double>& times() const { return times_; }
  const std::vector<double>& probabilities() const { return probabilities_; }

 private:
  std::vector<double> times_, probabilities_;  // distinct times, rising; probability from then on
};

/// How often, of two patients, the one with the higher risk had the event first.
struct Concordance {
  double index = 0;  ///< (concordant + tied / 2) / comparable; nan without comparable pairs
  double concordant = 0, discordant = 0, tied = 0;  ///< pairs, weighted for Uno's index; tied in risk
  double comparable() const { return concordant + discordant + tied; }
};

/// Harrell's C. A pair counts if one had the event while the other was still under observation, without the event.
/// risk: higher = earlier event; two risks within 1e-8 are tied. Cost O(n^2).
/// Source  Harrell et al. 1996, doi:10.1002/(SICI)1097-0258(19960229)15:4<361::AID-SIM168>3.0.CO;2-4
Concordance harrell_concordance(const SurvivalData& data, const std::vector<double>& risk);

/// Uno's C: pairs weighted by 1 / G(t)^2, G the censoring curve of `train`, so that it does not depend on who was
/// censored; events at `until` or later do not count.
/// Errors  ArgumentError where G is 0 at an event: choose an earlier `until`.
/// Source  Uno et al. 2011, doi:10.1002/sim.4154
Concordance uno_concordance(const SurvivalData& train, const SurvivalData& test, const std::vector<double>& risk, double until);

/// Area under the ROC curve of "event by time t" against "still without it", cases weighted by 1 / G(their time).
struct DynamicAuc {
  std::vector<double> auc;  ///< at each time; nan without cases or controls
  double mean = 0;          ///< weighted by the events' mass between the times
};
/// risk: [n]; times rise, within the follow-up of test.
/// Source  Uno et al. 2007, doi:10.1198/016214507000000149; Hung and Chiang 2010
DynamicAuc dynamic_auc(const SurvivalData& train, const SurvivalData& test, const std::vector<double>& risk, const std::vector<double>& times);

/// Mean squared distance of predicted survival from what happened, weighted for censoring.
struct BrierScore {
  std::vector<double> score;  ///< at each time
  double integrated = 0;      ///< mean over the times by the trapezoid rule; nan for fewer than two
};
/// survival[i][k]: predicted probability that patient i is without the event at times[k].
/// Source  Graf et al. 1999
BrierScore brier_score(const SurvivalData& train, const SurvivalData& test, const std::vector<std::vector<double>>& survival,
                       const std::vector<double>& times);

/// Predicted against observed at one time: patients in `groups` groups of equal size by prediction.
struct CalibrationPoint {
  double predicted = 0, observed = 0;  ///< mean prediction; Kaplan-Meier's estimate within the group
  int64_t patients = 0;
};
std::vector<CalibrationPoint> calibration(const SurvivalData& data, const std::vector<double>& survival, double time, int64_t groups);

/// Percentile interval of a statistic over resamples of the patients.
struct BootstrapInterval {
  double low = 0, high = 0;
  int64_t undefined = 0;  ///< resamples whose statistic was nan, left out
};
/// statistic: of patient indices [n], drawn with replacement. Paired comparisons: return the difference.
/// Errors  ArgumentError unless 0 < level < 1 and every resample was not undefined.
BootstrapInterval bootstrap_interval(size_t patients, const std::function<double(const std::vector<size_t>&)>& statistic,
                                     int64_t resamples = 1000, double level = 0.95, uint64_t seed = 0);

}  // namespace fovea::train
