#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "fovea/core/parallel.h"
#include "fovea/data/dataset.h"

namespace fovea::data {

/// What happens to the intensities of one channel.
enum class Normalisation {
  kCt,      // clip to [lower, upper], then (v - mean) / deviation, all four from the foreground of the whole dataset
  kZscore,  // (v - mean) / deviation of the case's own voxels (inside the crop)
  kZscoreNonzero,  // the same over voxels that are not 0; zero voxels stay 0
  kNone            // as stored
};
inline auto config_names(Normalisation) {
  return std::array{std::pair{Normalisation::kCt, "ct"}, std::pair{Normalisation::kZscore, "zscore"},
                    std::pair{Normalisation::kZscoreNonzero, "zscore_nonzero"},
                    std::pair{Normalisation::kNone, "none"}};
}

enum class ImageResampling { kLinear, kLinearAntialias };
inline auto config_names(ImageResampling) {
  return std::array{std::pair{ImageResampling::kLinear, "linear"},
                    std::pair{ImageResampling::kLinearAntialias, "linear_antialias"}};
}

/// kVote: the class with the largest share of the linear weights.
enum class LabelResampling { kNearest, kVote };
inline auto config_names(LabelResampling) {
  return std::array{std::pair{LabelResampling::kNearest, "nearest"}, std::pair{LabelResampling::kVote, "vote"}};
}

struct ChannelNormalisation {
  std::string channel;
  Normalisation scheme = Normalisation::kZscore;
  double lower = 0, upper = 0, mean = 0, deviation = 1;

  template <class V>
  void visit(V& v) {
    v("channel", channel, "name of the channel");
    v("scheme", scheme, "ct, zscore, zscore_nonzero or none");
    v("lower", lower, "ct: values are clipped to this 0.5 % quantile of the foreground");
    v("upper", upper, "ct: and to this 99.5 % quantile");
    v("mean", mean, "ct: mean of the foreground");
    v("deviation", deviation, "ct: standard deviation of the foreground");
  }
};

/// Foreground intensities of one channel over a dataset.
struct IntensitySummary {
  std::string channel;
  double minimum = 0, percentile_00_5 = 0, median = 0, percentile_99_5 = 0, maximum = 0, mean = 0, deviation = 0;

  template <class V>
  void visit(V& v) {
    v("channel", channel, "name of the channel");
    v("minimum", minimum, "of the sampled foreground voxels");
    v("percentile_00_5", percentile_00_5, "0.5 % quantile");
    v("median", median, "50 % quantile");
    v("percentile_99_5", percentile_99_5, "99.5 % quantile");
    v("maximum", maximum, "of the sampled foreground voxels");
    v("mean", mean, "of the sampled foreground voxels");
    v("deviation", deviation, "standard deviation of the sampled foreground voxels");
  }
};

/// What a plan was made from.
struct Fingerprint {
  int64_t cases = 0;
  std::array<double, 3> median_spacing_mm{1, 1, 1};
  std::array<int64_t, 3> median_shape{1, 1, 1};
  double foreground_box_fraction = 1;
  std::vector<int64_t> class_voxels;
  std::vector<IntensitySummary> intensities;

  template <class V>
  void visit(V& v) {
    v("cases", cases, "training cases that were read");
    v("median_spacing_mm", median_spacing_mm, "Z, Y, X, in the canonical orientation");
    v("median_shape", median_shape, "Z, Y, X, in the canonical orientation, after cropping");
    v("foreground_box_fraction", foreground_box_fraction,
      "median share of a volume that the box of its non-zero voxels fills");
    v("class_voxels", class_voxels, "voxels of each class over all cases");
    v("intensities", intensities, "foreground intensities of each channel");
  }
};

/// How scans become tensors and how a network is trained on them: everything that prediction must repeat, and the batch
/// that fits the stated memory. Written as plan.json by `fovea plan`; meant to be read and edited.
struct Plan {
  std::string dataset;
  std::string orientation = "RAS";            // the only one: canonical, x to the right, y to the front, z up
  std::array<double, 3> spacing_mm{1, 1, 1};  // Z, Y, X of the grid that the network sees
  bool crop_to_nonzero = false;               // cut to the box of non-zero (or labelled) voxels first
  ImageResampling image_resampling = ImageResampling::kLinearAntialias;
  LabelResampling label_resampling = LabelResampling::kVote;
  std::vector<ChannelNormalisation> normalisation;  // one a channel, in order
  std::vector<LabelClass> labels;                   // class k of the network; background first
  std::array<int64_t, 3> patch_size{32, 64, 64};    // Z, Y, X voxels
  int64_t batch_size = 2;
  int64_t ram_budget_bytes = int64_t{4} << 30;
  int64_t estimated_bytes = 0;  // of training with this patch and batch
  std::string network = "swin_unetr";
  nlohmann::ordered_json network_config = nlohmann::ordered_json::object();
  Fingerprint fingerprint;

  template <class V>
  void visit(V& v) {
    v("dataset", dataset, "name of the dataset that this plan was made for");
    v("orientation", orientation, "axes of the network's grid; only RAS");
    v("spacing_mm", spacing_mm, "voxel size of the network's grid: Z, Y, X");
    v("crop_to_nonzero", crop_to_nonzero, "cut each case to the box of its non-zero voxels");
    v("image_resampling", image_resampling, "linear or linear_antialias");
    v("label_resampling", label_resampling, "nearest or vote (largest share of linear weights)");
    v("normalisation", normalisation, "of each channel, in order");
    v("labels", labels, "classes in the order of the network's outputs; background first");
    v("patch_size", patch_size, "voxels of a training patch: Z, Y, X");
    v("batch_size", batch_size, "patches a step");
    v("ram_budget_bytes", ram_budget_bytes, "memory that training may take");
    v("estimated_bytes", estimated_bytes, "memory that training is expected to take");
    v("network", network, "name in the model registry");
    v("network_config", network_config, "the network's own configuration");
    v("fingerprint", fingerprint, "what the plan was made from; informative");
  }

  int64_t channels() const { return static_cast<int64_t>(normalisation.size()); }
  int64_t classes() const { return static_cast<int64_t>(labels.size()); }
  std::vector<std::string> label_names() const;
  /// Errors  ArgumentError naming the first field out of range.
  void validate() const;
};

/// What a training has to hold, on the plan's grid.
struct TrainingSize {
  std::array<int64_t, 3> patch{};  // Z, Y, X
  int64_t batch = 1, channels = 1, classes = 2;
  double all_scan_voxels = 0;

  double step_voxels() const { return double(batch) * double(patch[0]) * double(patch[1]) * double(patch[2]); }
};

/// Bytes that such a training takes.
using MemoryEstimate = std::function<int64_t(const TrainingSize&)>;

struct PlanOptions {
  int64_t max_ram_bytes = int64_t{4} << 30;
  std::optional<std::array<double, 3>> spacing_mm;   // Z, Y, X; default: median, see make_plan()
  std::optional<std::array<int64_t, 3>> patch_size;  // default: the largest that fits
  std::optional<int64_t> batch_size;                 // default: 2, more when a patch holds a whole scan
  int64_t patch_multiple = 32;                       // each edge of the patch is a multiple of it
  int64_t max_batch_size = 16;
  int64_t max_step_voxels = 0;  // a step of more takes long; 0: 614,000 for 4 GiB, more as max_ram_bytes grows
  std::string network = "swin_unetr";
  nlohmann::ordered_json network_config = nlohmann::ordered_json::object();
  MemoryEstimate memory_bytes = {};   // none: not asked about
  ParallelFor parallel = serial_for;  // over cases
};

/// Reads every training case once and decides grid, normalisation, patch and batch.
///   spacing   the median of each axis; if the coarsest axis is more than three times coarser than the others and has
///             less than a third of their voxels, its 10 % quantile instead (so that thin slices are not thrown away)
///   crop      to non-zero voxels when the median box is under 3/4 of the volume and no channel is CT; then z-scores
///             are taken over non-zero voxels
///   patch     the median shape rounded to the nearest multiple (36 voxels are not worth 64), two multiples along the
///             axis of most voxels at least; while memory_bytes() or the voxels of a step are over their budget, the
///             edge that is longest in mm shrinks by one multiple
///   batch     2, or 1 if only that fits; when the patch holds 3/4 of the median scan's edges, as many as fit, and at
///             most 5 % of all voxels of the dataset
/// Intensities come from at most 10,000 foreground voxels a case, evenly spread: the result does not depend on threads.
/// Errors  the IoError of the first case in order that cannot be used; ArgumentError: options, classes that share
///         values (regions) or an ignore label, which training does not support; ResourceError when even the smallest
///         patch with the asked batch does not fit, with the bytes needed.
/// Source  the rules of nnU-Net (Isensee et al. 2021, Nature Methods 18, 203-211), with a stated RAM budget.
Plan make_plan(const Dataset& dataset, const PlanOptions& options = {});

/// Everything that is wrong with the cases of a dataset, one line each ("CASE: FILE: problem"), in case order:
/// duplicate ids, missing or unreadable files, wrong number of channels (4-D files), grids that differ between channels
/// or between image and label, NaN or infinite voxels, constant images, labels that are no integers or not declared,
/// cases without label among labelled ones, numTraining. It goes on after each. Empty: all is well.
std::vector<std::string> verify(const Dataset& dataset, const ParallelFor& parallel = serial_for);

}  // namespace fovea::data
