#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "fovea/data/plan.h"
#include "fovea/infer/memory_plan.h"
#include "fovea/infer/model_folder.h"
#include "fovea/infer/sliding_window.h"
#include "fovea/recipes/stages.h"

namespace fovea::recipes {

/// A trained segmentation network, loaded once for any number of scans.
struct Segmenter {
  models::Network network;
  data::Plan plan;
  infer::SlidingWindowConfig windows;

  /// Errors  IoError: no model folder, damaged, or of another recipe.
  static Segmenter load(const std::filesystem::path& model);
  infer::WindowNetwork window_network() const;
};

/// Scans to predict: one a case, files in channel order.
struct PredictInput {
  std::string id;
  std::vector<std::filesystem::path> images;
};

struct PredictOptions {
  int64_t max_ram_bytes = 0;    // 0: no limit
  /// The scan is mirrored left-right for the network and the result mirrored back: for a network trained on one side only.
  bool mirror_left_right = false;
  bool save_probabilities = false;  // ID_probabilities.nii.gz beside the labels, u8 of 255, on the network's grid
};

struct PredictResult {
  std::string id;
  std::filesystem::path output;
  Stages stages;
  infer::MemoryPlan memory;
  int64_t peak_bytes = 0;       // of the process, measured
  std::string label_resampling; // how labels came to the source grid: "none", "scores, linear" or "labels, nearest"
};

/// The cases that `path` means: one image file; or a folder of them, where nnU-Net's CASE_0000, CASE_0001, ... are the
/// channels of one case. Errors: IoError when there is none, or a channel is missing.
std::vector<PredictInput> find_inputs(const std::filesystem::path& path, int64_t channels);

/// Labels of one scan on its own grid, written whole or not at all to `output`. The scores never exist at full resolution.
/// Errors   IoError for the scan; ResourceError when the memory limit cannot be met.
PredictResult predict_case(const Segmenter& segmenter, const PredictInput& input, const std::filesystem::path& output,
                           const PredictOptions& options, const infer::WindowProgress& progress = {});

}  // namespace fovea::recipes
