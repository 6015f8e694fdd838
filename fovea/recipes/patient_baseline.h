#pragma once
#include <string>
#include <vector>

#include "fovea/recipes/patient_outcome.h"

namespace fovea::recipes {

/// The numbers and words of patients as a matrix [n,P] f64 for a linear model: a missing number is 0, the training mean;
/// each word but a column's first is a column of its own, and a missing word is the first.
torch::Tensor table_matrix(const EncodedPatients& patients, const std::vector<int64_t>& categories);

/// What a sceptical reader would try first: Cox's model, or logistic regression, on the table's own columns. Its outcomes
/// [n,outputs] for the rows `answer`, learnt on the rows `train`. Undefined where the table has no columns.
struct PatientBaseline {
  std::string name;  // "Cox on 7 columns"
  PatientHead head;
  torch::Tensor outcome;
};
PatientBaseline fit_baseline(const EncodedPatients& patients, const std::vector<int64_t>& categories, const PatientHead& head, const torch::Tensor& train, const torch::Tensor& answer);

}  // namespace fovea::recipes
