#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "fovea/recipes/patient_config.h"
#include "fovea/recipes/patient_inputs.h"
#include "fovea/recipes/patient_outcome.h"

namespace fovea::recipes {

/// Which rows of a table do what.
struct PatientSplit {
  torch::Tensor train, validation, held_out;  // int64
};
/// `fold` of five for held_out, drawn by `seed`; without one the table's split column decides, and without that nobody is
/// held out. Of the rest validation_share choose the checkpoint. Errors: ArgumentError for a fold that is none.
PatientSplit split_patients(const data::PatientTable& table, std::optional<int64_t> fold, double validation_share, uint64_t seed);

/// Trains a network on encoded patients; the network has the best weights at the end.
/// The training's log, checkpoints and metrics go to `folder`.
struct FittedPatients {
  models::PatientNetwork network{nullptr};
  PatientHead head;
  train::TrainResult training;
};
struct FitOptions {
  bool resume = false;
  std::vector<std::string> command;  // for the line how to resume
};
FittedPatients fit_patients(const EncodedPatients& patients, const PatientSplit& split, const PatientConfig& config, train::RunFolder& folder, const FitOptions& options = {});

/// Outcomes of the patients `rows`, in evaluation mode, a few at a time.
struct PatientAnswers {
  torch::Tensor outcome, gates;  // [n,outputs], [n,modalities]
  double dice = 0;               // of the outlines over all voxels; nan without decoder or masks
};
PatientAnswers answer_patients(models::PatientNetworkImpl& network, const EncodedPatients& patients, const torch::Tensor& rows);

/// The same with one modality hidden. `modality`: its place in network.modalities().
EncodedPatients without_modality(const EncodedPatients& patients, size_t modality);

struct PatientTrainOptions {
  std::filesystem::path run;
  std::optional<int64_t> fold;
  bool resume = false;
  std::vector<std::string> command;
};
struct PatientTrainResult {
  train::TrainResult training;
  std::filesystem::path model, report;  // empty when the run was interrupted
  std::vector<PatientScore> scores;     // of the held-out patients, or of the validation ones where nobody is held out
};
/// Trains the recipe `patient`: RUN/{config.json, manifest.json, log.csv, checkpoints/}, then RUN/model, RUN/predictions.csv
/// of the held-out patients, RUN/metrics.json and RUN/report.html, where the result stands beside Cox's model or a logistic
/// regression on the table's own columns.
/// Errors   as train_segmentation()
PatientTrainResult train_patients(const data::PatientTable& table, const PatientConfig& config, const PatientTrainOptions& options);

}  // namespace fovea::recipes
