#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fovea/data/augment.h"
#include "fovea/data/patch_loader.h"
#include "fovea/data/patch_mask.h"
#include "fovea/data/plan.h"
#include "fovea/infer/sliding_window.h"
#include "fovea/io/json_file.h"
#include "fovea/train/loss.h"
#include "fovea/train/trainer.h"

namespace fovea::recipes {

/// Learning without labels: most patches of the image are hidden and rebuilt.
struct PretrainConfig {
  double ratio = 0;
  data::PatchMask mask = data::PatchMask::kRandom;
  bool normalise = false;

  template <class V>
  void visit(V& v) {
    v("ratio", ratio, "share of the patches that is hidden, to be rebuilt; 0: labels are learnt");
    v("mask", mask, "random, block, tube or grid");
    v("normalise", normalise, "each patch's target has mean 0 and deviation 1");
  }
};

/// Everything that decides a segmentation run; runs/NAME/config.json holds it resolved. Without a plan in the config file,
/// one is made for the dataset.
struct SegmentConfig {
  data::Plan plan;
  data::AugmentConfig augment;
  data::LoaderOptions loader;
  train::SegmentationLossConfig loss;
  PretrainConfig pretrain;
  train::TrainConfig train;
  infer::SlidingWindowConfig predict;
  int64_t validation_cases = 16;

  bool pretrains() const { return pretrain.ratio > 0; }

  template <class V>
  void visit(V& v) {
    v("plan", plan, "grid, normalisation, patch, batch and network; what prediction repeats");
    v("augment", augment, "random changes of training patches");
    v("loader", loader, "how patches are drawn and prepared");
    v("loss", loss, "Dice and cross-entropy");
    v("pretrain", pretrain, "learning without labels");
    v("train", train, "optimiser, schedule, length, checkpoints");
    v("predict", predict, "sliding window of validation and of the finished model");
    v("validation_cases", validation_cases, "held-out cases looked at during training; all of them at the end");
  }
};

/// The config for a dataset: defaults, then `file` (may be empty), then `overrides` ("train.steps=500"). A plan that the
/// file does not give is made with make_plan() within `max_ram_bytes`; fields of "plan" in the file and overrides win.
/// start: a model folder to begin from, whose network and patch are the defaults then; may be empty.
/// Errors   ArgumentError naming the key and its nearest known one, a network that cannot be pretrained.
SegmentConfig resolve_segment_config(const data::Dataset& dataset, const std::filesystem::path& file, const std::vector<std::string>& overrides,
                                     int64_t max_ram_bytes, const std::filesystem::path& start = {});

}  // namespace fovea::recipes
