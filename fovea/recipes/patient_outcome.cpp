#include "fovea/recipes/patient_outcome.h"

#include <torch/torch.h>

#include "fovea/core/error.h"
#include "fovea/train/classification_metrics.h"

namespace fovea::recipes {

namespace {
std::vector<double> doubles(const torch::Tensor& t) {
  const auto flat = t.detach().to(torch::kDouble).contiguous();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

std::vector<bool> second_class(const EncodedPatients& patients, const torch::Tensor& rows) {
  std::vector<bool> out;
  for (const double k : doubles(patients.label.index_select(0, rows))) out.push_back(k == 1);
  return out;
}

// The statistic of all patients, and of resamples of them.
template <class Statistic>
PatientScore with_interval(const std::string& name, int64_t patients, const Statistic& statistic, uint64_t seed) {
  std::vector<size_t> all(static_cast<size_t>(patients));
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  PatientScore score{name, statistic(all), {}};
  if (patients > 1 && score.value == score.value) score.interval = train::bootstrap_interval(size_t(patients), statistic, 1000, 0.95, seed);
  return score;
}

double share_correct(const torch::Tensor& outcome, const torch::Tensor& label, const std::vector<size_t>& of) {
  const auto right = outcome.argmax(1).eq(label);
  double n = 0;
  for (const size_t i : of) n += right[int64_t(i)].item<bool>();
  return n / double(of.size());
}
}  // namespace

PatientHead PatientHead::fit(const PatientConfig& config, const EncodedPatients& patients, const torch::Tensor& training_rows) {
  PatientHead head;
  head.kind = config.outcome;
  if (head.is_class()) head.classes = config.columns.classes;
  if (head.is_class() || head.kind == PatientOutcome::kCox || !head.is_learnt()) return head;
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
    default: return {};
  }
}

std::vector<double> PatientHead::risk(const torch::Tensor& outcome) const {
  if (kind == PatientOutcome::kCox) return doubles(outcome.squeeze(1));
  if (!is_class()) return doubles(-probabilities(outcome).sum(1));
  if (classes.size() != 2) throw ArgumentError("patient: " + std::to_string(classes.size()) + " classes have no risk, expected 2");
  return doubles(probabilities(outcome).select(1, 1));
}

train::SurvivalData survival_of(const EncodedPatients& patients, const torch::Tensor& rows) {
  train::SurvivalData data;
  data.time = doubles(patients.time.index_select(0, rows));
  for (const double e : doubles(patients.event.index_select(0, rows))) data.event.push_back(e != 0);
  return data;
}

double main_score(const PatientHead& head, const torch::Tensor& outcome, const EncodedPatients& patients, const torch::Tensor& rows) {
  if (!head.is_class()) return train::harrell_concordance(survival_of(patients, rows), head.risk(outcome)).index;
  if (head.classes.size() == 2) return train::roc_auc(head.risk(outcome), second_class(patients, rows));
  return outcome.argmax(1).eq(patients.label.index_select(0, rows)).to(torch::kDouble).mean().item<double>();
}

std::vector<PatientScore> score_outcome(const PatientHead& head, const torch::Tensor& outcome, const EncodedPatients& patients, const torch::Tensor& rows, uint64_t seed) {
  const int64_t n = rows.size(0);
  std::vector<PatientScore> scores;
  if (!head.is_class()) {
    const auto known = survival_of(patients, rows);
    const auto risk = head.risk(outcome);
    scores.push_back(with_interval("C-index", n, [&](const std::vector<size_t>& of) {
      train::SurvivalData some;
      std::vector<double> of_some;
      for (const size_t i : of) some.time.push_back(known.time[i]), some.event.push_back(known.event[i]), of_some.push_back(risk[i]);
      return train::harrell_concordance(some, of_some).index;
    }, seed));
    return scores;
  }
  if (head.classes.size() == 2) {
    const auto risk = head.risk(outcome);
    const auto positive = second_class(patients, rows);
    scores.push_back(with_interval("AUC", n, [&](const std::vector<size_t>& of) {
      std::vector<double> s;
      std::vector<bool> p;
      for (const size_t i : of) s.push_back(risk[i]), p.push_back(positive[i]);
      return train::roc_auc(s, p);
    }, seed));
  }
  const auto label = patients.label.index_select(0, rows);
  scores.push_back(with_interval("accuracy", n, [&](const std::vector<size_t>& of) { return share_correct(outcome, label, of); }, seed));
  return scores;
}

}  // namespace fovea::recipes
