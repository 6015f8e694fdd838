#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fovea/recipes/patient_config.h"
#include "fovea/recipes/patient_outcome.h"

namespace fovea::recipes {

/// What a training of the recipe `patient` has to show.
struct PatientReport {
  struct Method {
    std::string name;
    std::vector<PatientScore> scores;
    bool is_baseline = false;
  };
  const data::PatientTable* table = nullptr;
  const PatientConfig* config = nullptr;
  const PatientHead* head = nullptr;
  std::vector<std::string> modalities;
  std::filesystem::path run;
  bool held_out = false;                // scored on patients who took no part, else on those who chose the checkpoint
  int64_t scored = 0;
  torch::Tensor rows, outcome, gates;   // of the scored patients
  train::SurvivalData known;            // of them, for survival
  double dice = 0;                      // of the outlines
  std::vector<Method> methods;          // the network first, a baseline last
};

/// One offline HTML file: result beside baselines and left-out modalities, survival by third of risk, gates, training curve.
void write_patient_report(const std::filesystem::path& file, const PatientReport& report);

}  // namespace fovea::recipes
