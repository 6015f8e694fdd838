#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fovea/data/fixed_grid.h"
#include "fovea/data/patient_table.h"
#include "fovea/io/json_file.h"
#include "fovea/models/patient_network.h"
#include "fovea/train/survival_loss.h"
#include "fovea/train/task_balance.h"
#include "fovea/train/trainer.h"

namespace fovea::recipes {

/// What the outcome is and how it is learnt.
enum class PatientOutcome { kAuto, kClass, kCox, kLogisticHazard, kMtlr, kDeepHit };
inline auto config_names(PatientOutcome) {
  return std::array{std::pair{PatientOutcome::kAuto, "auto"},
                    std::pair{PatientOutcome::kClass, "class"},
                    std::pair{PatientOutcome::kCox, "cox"},
                    std::pair{PatientOutcome::kLogisticHazard, "logistic_hazard"},
                    std::pair{PatientOutcome::kMtlr, "mtlr"},
                    std::pair{PatientOutcome::kDeepHit, "deephit"}};
}

/// What reads the texts.
enum class PatientText {
  kOwn,     ///< word pieces of the training texts, with vectors learnt here
  kMiniLm,  ///< all-MiniLM-L6-v2, frozen (`scripts/data minilm`): a vector of each piece in its sentence
};
inline auto config_names(PatientText) { return std::array{std::pair{PatientText::kOwn, "own"}, std::pair{PatientText::kMiniLm, "minilm"}}; }

/// Everything that decides a run of the recipe `patient`; runs/NAME/config.json holds it resolved.
struct PatientConfig {
  data::PatientColumns columns;
  data::FixedGridConfig image;
  models::PatientNetworkConfig network;
  PatientOutcome outcome = PatientOutcome::kAuto;
  int64_t intervals = 10;
  double segmentation_weight = 0;
  train::TaskBalance balance = train::TaskBalance::kFixed;
  bool measures = false;
  PatientText text_encoder = PatientText::kOwn;
  double modality_dropout = 0.1;
  bool mirror = false;
  double validation_share = 0.2;
  train::TrainConfig train = defaults();

  template <class V>
  void visit(V& v) {
    v("columns", columns, "what the table's columns are: patients.json");
    v("image", image, "grid of the images");
    v("network", network, "one network of all modalities; what the table says replaces images, grid, numbers, categories, measures, vocabulary and outputs");
    v("outcome", outcome, "auto (class where the table has a label, else cox), class, cox, logistic_hazard, mtlr or deephit");
    v("intervals", intervals, "of follow-up, with as many events each; not for class and cox");
    v("segmentation_weight", segmentation_weight, "of the loss that outlines the mask on the first image; 0 = not learnt");
    v("balance", balance, "of outcome and segmentation: fixed, uncertainty or pcgrad");
    v("measures", measures, "the 107 radiomic features of the masked region are a token of their own");
    v("text_encoder", text_encoder, "own (word pieces of the training texts, learnt here) or minilm (all-MiniLM-L6-v2, frozen; scripts/data minilm)");
    v("modality_dropout", modality_dropout, "probability that a modality is hidden from a training step, so that the network can do without");
    v("mirror", mirror, "training images and masks are mirrored at random along each axis; not where left and right matter");
    v("validation_share", validation_share, "of the training patients, who choose the best checkpoint; 0 = the last one is taken");
    v("train", train, "optimiser, schedule, length, checkpoints");
  }
  static train::TrainConfig defaults();
  /// Errors  ArgumentError naming the field.
  void validate() const;
  bool segments() const { return segmentation_weight > 0; }
};

/// The config for a table: defaults, then `file` (may be empty), then `overrides` ("train.steps=500").
/// Errors   ArgumentError naming the key and its nearest known one, or an outcome that the table does not hold.
PatientConfig resolve_patient_config(const data::PatientTable& table, const std::filesystem::path& file, const std::vector<std::string>& overrides);

}  // namespace fovea::recipes
