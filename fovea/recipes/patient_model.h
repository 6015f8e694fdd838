#pragma once
#include <filesystem>
#include <string>

#include "fovea/recipes/patient_inputs.h"
#include "fovea/recipes/patient_outcome.h"

namespace fovea::recipes {

/// A trained network of patients with everything that prediction repeats.
struct PatientModel {
  models::PatientNetwork network{nullptr};
  PatientInputs inputs;
  PatientHead head;

  /// Learnt on made-up patients.
  bool simulated() const { return inputs.columns.simulated; }

  /// Errors  IoError: no model folder, damaged; ArgumentError: of another recipe.
  static PatientModel load(const std::filesystem::path& model);
  void save(const std::filesystem::path& model, const std::string& model_card) const;
};

/// One line a patient: id, then risk (or the probability of each class), the gate of each modality, survival beyond each
/// cut, and what is known of the outcome. The file appears whole or not at all.
void write_predictions(const std::filesystem::path& file, const data::PatientTable& table, const torch::Tensor& rows, const PatientModel& model,
                       const torch::Tensor& outcome, const torch::Tensor& gates);

/// Predicts every patient of a table; outcomes need not be known. Returns how many.
/// outlines: a folder that write_outlines() fills; empty: none
/// Errors  as open_patients(), encode() and write_outlines()
int64_t predict_patients(const PatientModel& model, const std::filesystem::path& table, const std::filesystem::path& output,
                         const std::filesystem::path& outlines = {});

/// Scores a file of predictions against the outcomes of a table: C-index, or AUC and accuracy, with intervals.
/// Errors  IoError: a patient of the predictions who is not in the table, no outcome
std::vector<PatientScore> evaluate_predictions(const std::filesystem::path& predictions, const data::PatientTable& table);

}  // namespace fovea::recipes
