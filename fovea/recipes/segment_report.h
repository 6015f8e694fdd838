#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "fovea/recipes/evaluate.h"
#include "fovea/report/image.h"

namespace fovea::recipes {

/// What goes into the report of a segmentation run. Everything but `run` is optional: a part without data is left out.
struct SegmentReport {
  struct Baseline {
    std::string name;  // "left labels mirrored"
    Evaluation evaluation;
  };

  std::filesystem::path run;                  // config.json, manifest.json, log.csv, validation.csv
  std::optional<Evaluation> evaluation;       // of the network's predictions
  std::vector<Baseline> baselines;            // simple methods on the same cases
  std::filesystem::path image, prediction, reference;  // one case to draw
  std::filesystem::path attention;            // folder that explain wrote
  std::filesystem::path prediction_log;       // prediction.json: time and memory by stage
  std::optional<report::Image> rebuilt;       // pretraining: a held-out patch, what was visible of it, and what was made of the rest
  std::vector<std::string> notes;             // what a reader must know, shown first
};

/// Writes one HTML file that opens offline: metrics beside the baseline, slices with outlines, attention, curves, stage
/// times, memory, machine and the command to repeat it. Errors: IoError for a named file that cannot be read.
void write_segment_report(const std::filesystem::path& output, const SegmentReport& content);

}  // namespace fovea::recipes
