#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "fovea/data/dataset.h"
#include "fovea/recipes/evaluate.h"
#include "fovea/recipes/segment_config.h"
#include "fovea/train/trainer.h"

namespace fovea::recipes {

struct SegmentTrainOptions {
  std::filesystem::path run;          // runs/NAME
  std::optional<int64_t> fold;        // none: train on every labelled case
  std::filesystem::path start;        // model folder or weights file to begin from; empty: random weights
  bool resume = false;
  std::vector<std::string> command;   // argv, for the manifest and the line how to resume
};

struct SegmentTrainResult {
  train::TrainResult training;
  std::filesystem::path model;        // the model folder; empty when the run was interrupted
  std::filesystem::path summary;      // validation/summary.json; empty without held-out cases
  std::filesystem::path report;
};

/// The foreground classes of a dataset as structures to score.
std::vector<EvaluationLabel> evaluation_labels(const std::vector<data::LabelClass>& classes);

/// Trains a segmentation network: RUN/{config.json, manifest.json, log.csv, validation.csv, events, checkpoints/}, then with
/// the best weights RUN/model, RUN/validation (each held-out case predicted on its own grid, summary.json) and RUN/report.html.
/// A finished run is not trained again: with resume it returns what is there.
/// With config.pretrain labels are not read: a masked autoencoder learns to rebuild hidden patches, RUN/model holds encoder
/// and decoder, and validation is the error on held-out cases.
/// Errors   ArgumentError: the run exists and resume is off, or its config differs; IoError for data; see train::Trainer.
SegmentTrainResult train_segmentation(const data::Dataset& dataset, const SegmentConfig& config, const SegmentTrainOptions& options);

}  // namespace fovea::recipes
