#include "fovea/recipes/patient_baseline.h"

#include <torch/torch.h>

#include "fovea/train/cox_regression.h"
#include "fovea/train/logistic_regression.h"

namespace fovea::recipes {

torch::Tensor table_matrix(const EncodedPatients& patients, const std::vector<int64_t>& categories) {
  std::vector<torch::Tensor> columns{patients.inputs.numbers.to(torch::kDouble).nan_to_num()};
  for (size_t c = 0; c < categories.size(); ++c)
    for (int64_t word = 1; word < categories[c]; ++word) columns.push_back(patients.inputs.codes.select(1, int64_t(c)).eq(word).to(torch::kDouble).unsqueeze(1));
  return torch::cat(columns, 1);
}

PatientBaseline fit_baseline(const EncodedPatients& patients, const std::vector<int64_t>& categories, const PatientHead& head, const torch::Tensor& train, const torch::Tensor& answer) {
  PatientBaseline out;
  out.head = head;
  const auto x = table_matrix(patients, categories);
  const int64_t columns = patients.inputs.numbers.size(1) + patients.inputs.codes.size(1);
  if (columns == 0) return out;
  const auto learnt = x.index_select(0, train), asked = x.index_select(0, answer);
  if (head.is_class()) {
    out.name = "logistic regression on " + std::to_string(columns) + " columns";
    out.outcome = train::fit_logistic(learnt, patients.label.index_select(0, train), head.outputs()).logits(asked);
    return out;
  }
  out.name = "Cox on " + std::to_string(columns) + " columns";
  out.head.kind = PatientOutcome::kCox, out.head.cuts.clear();
  // A small penalty keeps a column that is constant among the training rows, or tells events apart, finite.
  const auto fit = train::fit_cox(learnt, {patients.time.index_select(0, train), patients.event.index_select(0, train)}, train::CoxTies::kEfron, 1e-6);
  out.outcome = fit.risk(asked).unsqueeze(1);
  out.head.learn_hazard(fit.risk(learnt).unsqueeze(1), survival_of(patients, train));
  return out;
}

}  // namespace fovea::recipes
