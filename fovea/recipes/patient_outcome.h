#pragma once
#include <string>
#include <vector>

#include "fovea/recipes/patient_config.h"
#include "fovea/recipes/patient_inputs.h"
#include "fovea/train/breslow_hazard.h"
#include "fovea/train/survival_metrics.h"

namespace fovea::recipes {

/// What a network's outputs mean, and how good they are: a class, a log hazard ratio, or intervals of follow-up.
struct PatientHead {
  PatientOutcome kind = PatientOutcome::kClass;
  std::vector<std::string> classes;  // of a class
  std::vector<double> cuts;          // between the intervals; of cox: when half of the hazard's events, a quarter more and less, have been
  std::vector<double> hazard_times, hazard;  // of cox: Breslow's cumulative baseline hazard

  template <class V>
  void visit(V& v) {
    v("kind", kind, "class, cox, logistic_hazard, mtlr or deephit");
    v("classes", classes, "the classes that there are");
    v("cuts", cuts, "times between the intervals of follow-up, or for cox those at which survival is told");
    v("hazard_times", hazard_times, "of cox: when the cumulative baseline hazard rises");
    v("hazard", hazard, "of cox: to what");
  }

  /// For the config; intervals are cut so that the training rows have as many events in each.
  static PatientHead fit(const PatientConfig& config, const EncodedPatients& patients, const torch::Tensor& training_rows);
  /// For cox: the baseline hazard of patients with these outcomes, thinned to 200 times, so that risks become probabilities.
  void learn_hazard(const torch::Tensor& outcome, const train::SurvivalData& known);
  /// False for kAuto: the outline alone is learnt.
  bool is_learnt() const { return kind != PatientOutcome::kAuto; }
  bool is_class() const { return kind == PatientOutcome::kClass; }
  int64_t outputs() const;

  /// Mean loss of a batch: outcome [B,outputs] of the patients `rows`. A batch without events has no Cox loss: 0.
  torch::Tensor loss(const torch::Tensor& outcome, const EncodedPatients& patients, const torch::Tensor& rows) const;
  /// Higher = earlier event, or for two classes the probability of the second: [B] f64. Errors: ArgumentError for more classes.
  std::vector<double> risk(const torch::Tensor& outcome) const;
  /// Class probabilities [B,K], or the probability of living beyond each cut [B,cuts]; none for cox without a hazard.
  torch::Tensor probabilities(const torch::Tensor& outcome) const;
  /// The probability of living beyond each time: [B][times]; between cuts by straight lines. Empty where none is known.
  std::vector<std::vector<double>> survival(const torch::Tensor& outcome, const std::vector<double>& times) const;
};

/// A figure with the percentile interval of 1000 resamples of the patients.
struct PatientScore {
  std::string name;  // "C-index", "Brier score", "AUC", "accuracy"
  double value = 0;
  train::BootstrapInterval interval;
};
/// The patients `rows` as survival data.
train::SurvivalData survival_of(const EncodedPatients& patients, const torch::Tensor& rows);
/// Harrell's C of a risk, and where survival is predicted the integrated Brier score (lower is better) over the middle 80 % of
/// the event times, weighted by these patients' own censoring; or of classes the AUC (two) and accuracy. The first is the one that matters.
std::vector<PatientScore> score_outcome(const PatientHead& head, const torch::Tensor& outcome, const EncodedPatients& patients, const torch::Tensor& rows, uint64_t seed = 0);
/// The first of them alone, without interval.
double main_score(const PatientHead& head, const torch::Tensor& outcome, const EncodedPatients& patients, const torch::Tensor& rows);

}  // namespace fovea::recipes
