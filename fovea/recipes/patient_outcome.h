#pragma once
#include <string>
#include <vector>

#include "fovea/recipes/patient_config.h"
#include "fovea/recipes/patient_inputs.h"
#include "fovea/train/survival_metrics.h"

namespace fovea::recipes {

/// What a network's outputs mean, and how good they are: a class, a log hazard ratio, or intervals of follow-up.
struct PatientHead {
  PatientOutcome kind = PatientOutcome::kClass;
  std::vector<std::string> classes;  // of a class
  std::vector<double> cuts;          // between the intervals; else empty

  template <class V>
  void visit(V& v) {
    v("kind", kind, "class, cox, logistic_hazard, mtlr or deephit");
    v("classes", classes, "the classes that there are");
    v("cuts", cuts, "times between the intervals of follow-up");
  }

  /// For the config; intervals are cut so that the training rows have as many events in each.
  static PatientHead fit(const PatientConfig& config, const EncodedPatients& patients, const torch::Tensor& training_rows);
  /// False for kAuto: the outline alone is learnt.
  bool is_learnt() const { return kind != PatientOutcome::kAuto; }
  bool is_class() const { return kind == PatientOutcome::kClass; }
  int64_t outputs() const;

  /// Mean loss of a batch: outcome [B,outputs] of the patients `rows`. A batch without events has no Cox loss: 0.
  torch::Tensor loss(const torch::Tensor& outcome, const EncodedPatients& patients, const torch::Tensor& rows) const;
  /// Higher = earlier event, or for two classes the probability of the second: [B] f64. Errors: ArgumentError for more classes.
  std::vector<double> risk(const torch::Tensor& outcome) const;
  /// Class probabilities [B,K], or the probability of living beyond each cut [B,cuts]; none for cox.
  torch::Tensor probabilities(const torch::Tensor& outcome) const;
};

/// A figure with the percentile interval of 1000 resamples of the patients.
struct PatientScore {
  std::string name;  // "C-index", "AUC", "accuracy"
  double value = 0;
  train::BootstrapInterval interval;
};
/// The patients `rows` as survival data.
train::SurvivalData survival_of(const EncodedPatients& patients, const torch::Tensor& rows);
/// Harrell's C of a risk; or of classes the AUC (two) and accuracy. The first is the one that matters.
std::vector<PatientScore> score_outcome(const PatientHead& head, const torch::Tensor& outcome, const EncodedPatients& patients, const torch::Tensor& rows, uint64_t seed = 0);
/// The first of them alone, without interval.
double main_score(const PatientHead& head, const torch::Tensor& outcome, const EncodedPatients& patients, const torch::Tensor& rows);

}  // namespace fovea::recipes
