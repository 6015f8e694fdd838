#pragma once
#include <cstdint>
#include <vector>

#include "fovea/recipes/patient_train.h"
#include "fovea/train/task_balance.h"

// Does outlining a tumour help to tell the patient's course, and the other way round? Row A10.
namespace fovea::recipes {

/// Made-up scans of 16^3 voxels with four bright lesions, ellipsoids of mean radius 2.2 to 4.2 voxels with a rim that is more
/// or less rough, in noise. One of them, with a dark core, is the tumour: the mask shows it. The hazard is exp(size +
/// roughness) of the tumour, both standardised; what the other lesions look like does not matter. About a third of the
/// patients are lost to follow-up.
struct TumourPatients {
  EncodedPatients patients;  // one image, masks, time and event
  torch::Tensor volume;      // [n] f64, voxels of the tumour
  torch::Tensor roughness;   // [n] f64 in [0, 1]
};
TumourPatients draw_tumour_patients(int64_t count, uint64_t seed);

/// What one network reached on 400 fresh patients.
struct TumourScore {
  double concordance = 0;   // nan where the outcome was not learnt
  double dice = 0;          // nan where the outline was not learnt
  std::vector<double> risk;
};

struct TumourPrognosis {
  TumourScore joint, outcome_alone, outline_alone;  // the same network, losses left out
  double cox_volume = 0;                             // C-index of Cox's model on the true volume
  double cox_both = 0;                               // on true volume and roughness: what can be known
  train::GradientAgreement agreement;                // of both losses on the shared attention weights, at the end
  /// 95 % of resamples of the 400 patients: C-index of joint less that of outcome_alone.
  train::BootstrapInterval gain;
};

/// Trains the three networks on the same `patients` simulated patients. Same seed, same result.
/// Cost     about a minute on one thread
TumourPrognosis learn_tumour_prognosis(int64_t patients, uint64_t seed, train::TaskBalance balance = train::TaskBalance::kFixed);

}  // namespace fovea::recipes
