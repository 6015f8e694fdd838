#include "fovea/recipes/patient_outcome.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "fovea/core/error.h"
#include "fovea/data/torch_tensor.h"
#include "fovea/train/classification_metrics.h"

namespace fovea::recipes {

namespace {
using data::to_doubles;

// A figure of any group of the patients, by their indices.
struct Statistic {
  std::string name;
  std::function<double(const std::vector<size_t>&)> of;
};

// Twenty times between the first and the last tenth of the events; fewer where there are fewer events.
std::vector<double> middle_event_times(const train::SurvivalData& known) {
  std::vector<double> events, times;
  for (size_t i = 0; i < known.size(); ++i)
    if (known.event[i]) events.push_back(known.time[i]);
  std::sort(events.begin(), events.end());
  for (int k = 0; k < 20 && !events.empty(); ++k) {
    const double time = events[size_t((0.1 + 0.8 * k / 19) * double(events.size() - 1))];
    if (times.empty() || time > times.back()) times.push_back(time);
  }
  return times;
}

// What an outcome is judged by, the figure that matters first.
std::vector<Statistic> statistics(const PatientHead& head, const torch::Tensor& outcome, const EncodedPatients& patients, const torch::Tensor& rows) {
  std::vector<Statistic> list;
  if (!head.is_class()) {
    list.push_back({"C-index", [known = survival_of(patients, rows), risk = head.risk(outcome)](const std::vector<size_t>& of) {
                      return train::harrell_concordance(train::select(known, of), train::select(risk, of)).index;
                    }});
    const auto known = survival_of(patients, rows);
    const auto times = middle_event_times(known);
    if (const auto survival = head.survival(outcome, times); !survival.empty() && times.size() > 1)
      list.push_back({"Brier score", [known, survival, times](const std::vector<size_t>& of) {
                        const auto some = train::select(known, of);
                        return train::brier_score(some, some, train::select(survival, of), times).integrated;
                      }});
    return list;
  }
  const auto label = patients.label.index_select(0, rows);
  if (head.classes.size() == 2) {
    std::vector<bool> positive;
    for (const double k : to_doubles(label)) positive.push_back(k == 1);
    list.push_back({"AUC", [positive, risk = head.risk(outcome)](const std::vector<size_t>& of) { return train::roc_auc(train::select(risk, of), train::select(positive, of)); }});
  }
  list.push_back({"accuracy", [right = to_doubles(outcome.argmax(1).eq(label))](const std::vector<size_t>& of) {
                    double n = 0;
                    for (const size_t i : of) n += right[i];
                    return n / double(of.size());
                  }});
  return list;
}

std::vector<size_t> everybody(const torch::Tensor& rows) {
  std::vector<size_t> all(static_cast<size_t>(rows.size(0)));
  std::iota(all.begin(), all.end(), size_t{0});
  return all;
}
}  // namespace

PatientHead PatientHead::fit(const PatientConfig& config, const EncodedPatients& patients, const torch::Tensor& training_rows) {
  PatientHead head;
  head.kind = config.outcome;
  if (head.is_class()) head.classes = config.columns.classes;
  if (head.is_class() || head.kind == PatientOutcome::kCox || !head.is_learnt()) return head;  // learn_hazard() follows
  const train::SurvivalTensors known{patients.time.index_select(0, training_rows), patients.event.index_select(0, training_rows)};
  head.cuts = train::TimeIntervals::of_equal_events(known, config.intervals).cuts();
  return head;
}

int64_t PatientHead::outputs() const {
  if (is_class()) return int64_t(classes.size());
  return kind == PatientOutcome::kCox || !is_learnt() ? 1 : int64_t(cuts.size()) + 1;
}

torch::Tensor PatientHead::loss(const torch::Tensor& outcome, const EncodedPatients& patients, const torch::Tensor& rows) const {
  if (is_class()) return torch::nn::functional::cross_entropy(outcome, patients.label.index_select(0, rows));
  const auto time = patients.time.index_select(0, rows), event = patients.event.index_select(0, rows);
  if (kind == PatientOutcome::kCox) return train::cox_loss(outcome.squeeze(1), {time, event}) / event.sum().clamp_min(1);
  const auto interval = train::TimeIntervals(cuts).of(time);
  if (kind == PatientOutcome::kLogisticHazard) return train::logistic_hazard_loss(outcome, interval, event);
  if (kind == PatientOutcome::kMtlr) return train::mtlr_loss(outcome, interval, event);
  return train::deephit_loss(outcome, interval, event);
}

torch::Tensor PatientHead::probabilities(const torch::Tensor& outcome) const {
  switch (kind) {
    case PatientOutcome::kClass: return outcome.softmax(1);
    case PatientOutcome::kLogisticHazard: return train::logistic_hazard_survival(outcome).slice(1, 0, int64_t(cuts.size()));
    case PatientOutcome::kMtlr: return train::mtlr_survival(outcome).slice(1, 0, int64_t(cuts.size()));
    case PatientOutcome::kDeepHit: return train::deephit_survival(outcome).slice(1, 0, int64_t(cuts.size()));
    case PatientOutcome::kCox: break;
    default: return {};
  }
  if (hazard.empty()) return {};
  const auto rows = survival(outcome, cuts);
  auto told = torch::empty({int64_t(rows.size()), int64_t(cuts.size())}, torch::kDouble);
  for (size_t i = 0; i < rows.size(); ++i)
    for (size_t k = 0; k < cuts.size(); ++k) told[int64_t(i)][int64_t(k)] = rows[i][k];
  return told;
}

void PatientHead::learn_hazard(const torch::Tensor& outcome, const train::SurvivalData& known) {
  if (kind != PatientOutcome::kCox) return;
  const auto whole = train::breslow_hazard(known, to_doubles(outcome.squeeze(1)));
  constexpr size_t kMost = 200;
  hazard_times.clear(), hazard.clear(), cuts.clear();
  const size_t n = whole.times.size(), kept = std::min(n, kMost);
  for (size_t i = 1; i <= kept; ++i) {
    const size_t at = i * n / kept - 1;
    hazard_times.push_back(whole.times[at]), hazard.push_back(whole.cumulative[at]);
  }
  for (size_t quarter = 1; quarter <= 3 && n > 3; ++quarter) cuts.push_back(whole.times[quarter * n / 4]);
}

std::vector<std::vector<double>> PatientHead::survival(const torch::Tensor& outcome, const std::vector<double>& times) const {
  std::vector<std::vector<double>> rows;
  if (kind == PatientOutcome::kCox && !hazard.empty()) {
    const train::BreslowHazard baseline{hazard_times, hazard};
    for (const double r : to_doubles(outcome.squeeze(1))) {
      auto& row = rows.emplace_back();
      for (const double time : times) row.push_back(baseline.survival(time, r));
    }
    return rows;
  }
  if (is_class() || kind == PatientOutcome::kCox || !is_learnt() || cuts.empty()) return rows;
  const auto at_cuts = probabilities(outcome);
  for (int64_t i = 0; i < at_cuts.size(0); ++i) {
    const auto told = to_doubles(at_cuts[i]);
    auto& row = rows.emplace_back();
    for (const double time : times) {
      const size_t after = size_t(std::upper_bound(cuts.begin(), cuts.end(), time) - cuts.begin());
      if (after == cuts.size()) {
        row.push_back(told.back());
        continue;
      }
      const double from = after == 0 ? 0 : cuts[after - 1], high = after == 0 ? 1 : told[after - 1];
      row.push_back(high + (told[after] - high) * (time - from) / (cuts[after] - from));
    }
  }
  return rows;
}

std::vector<double> PatientHead::risk(const torch::Tensor& outcome) const {
  if (kind == PatientOutcome::kCox) return to_doubles(outcome.squeeze(1));
  if (!is_class()) return to_doubles(-probabilities(outcome).sum(1));
  if (classes.size() != 2) throw ArgumentError("patient: " + std::to_string(classes.size()) + " classes have no risk, expected 2");
  return to_doubles(probabilities(outcome).select(1, 1));
}

train::SurvivalData survival_of(const EncodedPatients& patients, const torch::Tensor& rows) {
  train::SurvivalData data;
  data.time = to_doubles(patients.time.index_select(0, rows));
  for (const double e : to_doubles(patients.event.index_select(0, rows))) data.event.push_back(e != 0);
  return data;
}

double main_score(const PatientHead& head, const torch::Tensor& outcome, const EncodedPatients& patients, const torch::Tensor& rows) {
  return statistics(head, outcome, patients, rows).front().of(everybody(rows));
}

std::vector<PatientScore> score_outcome(const PatientHead& head, const torch::Tensor& outcome, const EncodedPatients& patients, const torch::Tensor& rows, uint64_t seed) {
  const auto all = everybody(rows);
  std::vector<PatientScore> scores;
  for (const auto& [name, of] : statistics(head, outcome, patients, rows)) {
    PatientScore score{name, of(all), {}};
    if (all.size() > 1 && !std::isnan(score.value)) score.interval = train::bootstrap_interval(all.size(), of, 1000, 0.95, seed);
    scores.push_back(std::move(score));
  }
  return scores;
}

}  // namespace fovea::recipes
