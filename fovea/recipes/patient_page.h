#pragma once
#include <filesystem>
#include <string>

#include "fovea/recipes/patient_model.h"

namespace fovea::recipes {

/// What the model says of one patient, and on what grounds.
struct PatientExplanation {
  std::string id;
  torch::Tensor outcome, probabilities;  // [1,outputs]; [1,K] or [1,cuts], undefined for cox
  torch::Tensor gates;                   // [modalities]
  torch::Tensor attention;               // [tokens]: what the class token reads in the last block, mean over heads
  std::vector<torch::Tensor> without;    // outcome with each modality left out
  EncodedPatients patient;               // this one alone
};
PatientExplanation explain_patient(const PatientModel& model, const data::PatientTable& table, const std::string& id);

/// One offline HTML page: the prediction, each modality's gate and share of attention, what changes without it, attention on
/// the scan, on the table's values and on the words.
/// Errors   ArgumentError: no such patient, a network without attention; IoError of encode()
void write_patient_page(const std::filesystem::path& file, const PatientModel& model, const data::PatientTable& table, const std::string& id);

}  // namespace fovea::recipes
