#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "fovea/io/json_file.h"
#include "fovea/train/segmentation_metrics.h"

namespace fovea::recipes {

/// A structure to score: one label value, or a region that several values make up.
struct EvaluationLabel {
  std::string name;             // for people: "hippocampus head"
  std::vector<int64_t> values;  // at least one

  /// nnU-Net's key of it: "1", or "(1, 2)" for a region.
  std::string key() const;
};

struct EvaluateOptions {
  train::SegmentationMetricsOptions metrics;
  train::EmptyPolicy policy = train::EmptyPolicy::kNanExcluded;  // of what summary_text() shows first; both are stored
  std::optional<int64_t> ignore_label;                           // voxels with this reference label are not counted
  double grid_tolerance_mm = 1e-3;                               // how far the corners of the two grids may be apart
  std::function<void(int64_t done, int64_t total)> progress;
};

struct CaseEvaluation {
  std::string name;
  std::filesystem::path reference, prediction;
  double diagonal_mm = 0;                          // of the image: the distance of a structure that is missing, if penalised
  std::vector<train::SegmentationMetrics> metrics;  // one for each label
};

struct Evaluation {
  std::vector<EvaluationLabel> labels;
  EvaluateOptions options;
  std::vector<CaseEvaluation> cases;
};

/// Scores every image of `predictions` against the one of the same name (less .nii, .nii.gz, .nrrd, .nhdr) in `references`.
/// Errors   IoError naming the file: a prediction without reference or the other way round, two files of one name, an
///          unreadable file, several channels, grids that differ (both geometries are named), a label that is not an
///          integer or is none of 0, `labels` and ignore_label. ArgumentError: no labels, no values.
/// Cost     two volumes and a few masks in memory at a time.
Evaluation evaluate_folders(const std::filesystem::path& predictions, const std::filesystem::path& references,
                            const std::vector<EvaluationLabel>& labels, const EvaluateOptions& options = {});

/// One pair of files.
CaseEvaluation evaluate_case(const std::filesystem::path& prediction, const std::filesystem::path& reference,
                             const std::vector<EvaluationLabel>& labels, const EvaluateOptions& options = {});

/// One metric of one structure over all cases, under both policies.
struct MetricSummary {
  std::string metric;  // "Dice", "HD95_mm", "NSD_1mm", ...
  train::MetricMean nan_excluded, penalised;
};
std::vector<MetricSummary> summarise(const Evaluation& e, size_t label);
train::PresenceCounts presence(const Evaluation& e, size_t label);

/// nnU-Net's summary {foreground_mean, mean, metric_per_case}; its means leave out nan. Everything else we know (surface
/// distances, volumes, presence counts, the penalised means, the convention) is under the one further key "fovea", which
/// `with_fovea` = false leaves out.
io::Json summary_json(const Evaluation& e, bool with_fovea = true);

/// Writes the summary as nnU-Net does, byte for byte where it holds the same: keys sorted, four spaces, undefined numbers as
/// NaN (which Python reads; strict JSON has no such number).
void write_summary(const std::filesystem::path& path, const Evaluation& e, bool with_fovea = true);

/// A table for people: structures, means under the policy, and how many cases were left out or penalised.
std::string summary_text(const Evaluation& e);

}  // namespace fovea::recipes
