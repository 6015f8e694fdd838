#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fovea/data/augment.h"
#include "fovea/data/patch_loader.h"
#include "fovea/data/plan.h"
#include "fovea/infer/sliding_window.h"
#include "fovea/io/json_file.h"
#include "fovea/train/loss.h"
#include "fovea/train/trainer.h"

namespace fovea::recipes {

/// Everything that decides a segmentation run; runs/NAME/config.json holds it resolved. Without a plan in the config file,
/// one is made for the dataset.
struct SegmentConfig {
  data::Plan plan;
  data::AugmentConfig augment;
  data::LoaderOptions loader;
  train::SegmentationLossConfig loss;
  train::TrainConfig train;
  infer::SlidingWindowConfig predict;
  int64_t validation_cases = 16;

  template <class V>
  void visit(V& v) {
    v("plan", plan, "grid, normalisation, patch, batch and network; what prediction repeats");
    v("augment", augment, "random changes of training patches");
    v("loader", loader, "how patches are drawn and prepared");
    v("loss", loss, "Dice and cross-entropy");
    v("train", train, "optimiser, schedule, length, checkpoints");
    v("predict", predict, "sliding window of validation and of the finished model");
    v("validation_cases", validation_cases, "held-out cases looked at during training; all of them at the end");
  }
};

/// The config for a dataset: defaults, then `file` (may be empty), then `overrides` ("train.steps=500"). A plan that the
/// file does not give is made with make_plan() within `max_ram_bytes`; fields of "plan" in the file and overrides win.
/// Errors   ArgumentError naming the key and its nearest known one.
SegmentConfig resolve_segment_config(const data::Dataset& dataset, const std::filesystem::path& file, const std::vector<std::string>& overrides,
                                     int64_t max_ram_bytes);

}  // namespace fovea::recipes
