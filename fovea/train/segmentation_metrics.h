#pragma once
#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/core/parallel.h"
#include "fovea/core/view.h"
#include "fovea/train/surface_distance.h"

namespace fovea::train {

/// Voxels of one structure by agreement of prediction and reference.
struct OverlapCounts {
  int64_t tp = 0, fp = 0, fn = 0, tn = 0;

  int64_t n_pred() const { return tp + fp; }
  int64_t n_ref() const { return tp + fn; }
  /// 2 TP / (2 TP + FP + FN); nan when both are empty.
  double dice() const { return ratio(2 * tp, 2 * tp + fp + fn); }
  /// TP / (TP + FP + FN); nan when both are empty.
  double iou() const { return ratio(tp, tp + fp + fn); }
  /// 1 - |n_pred - n_ref| / (n_pred + n_ref); nan when both are empty.
  double volumetric_similarity() const {
    const int64_t sum = n_pred() + n_ref(), difference = n_pred() > n_ref() ? n_pred() - n_ref() : n_ref() - n_pred();
    return sum == 0 ? std::numeric_limits<double>::quiet_NaN() : 1 - double(difference) / double(sum);
  }
  OverlapCounts& operator+=(const OverlapCounts& o) { return tp += o.tp, fp += o.fp, fn += o.fn, tn += o.tn, *this; }
  bool operator==(const OverlapCounts&) const = default;

 private:
  static double ratio(int64_t a, int64_t b) { return b == 0 ? std::numeric_limits<double>::quiet_NaN() : double(a) / double(b); }
};

/// Counts of every label 0 ... labels-1 in one pass: what a training loop accumulates for its validation Dice.
/// Shapes   any rank as one axis; both the same length. A voxel whose reference is `ignore_label` is not counted.
/// Errors   ArgumentError on unequal lengths, or a label outside 0 ... labels-1 (says which, and where).
std::vector<OverlapCounts> overlap_counts(const View<const int32_t, 1>& prediction, const View<const int32_t, 1>& reference,
                                          int64_t labels, int32_t ignore_label = -1);

/// What a metric is when a structure is missing from the prediction, the reference or both. Which of the two is meant is
/// always said, and the number of such cases is always reported.
enum class EmptyPolicy {
  /// nnU-Net's: undefined values are nan and left out of means. Dice is nan only if both are empty, 0 if one is;
  /// distances and NSD are nan if either is empty.
  kNanExcluded,
  /// Nothing is left out. Both empty: a perfect score (1, 0 mm). One empty: the worst (0, the diagonal of the image).
  kPenalised,
};

/// "nan-excluded", "penalised".
std::string name_of(EmptyPolicy policy);
/// Errors  ArgumentError naming the known ones.
EmptyPolicy empty_policy(std::string_view name);

/// Everything we say about one structure of one case. Undefined values are nan (EmptyPolicy::kNanExcluded).
struct SegmentationMetrics {
  OverlapCounts counts;
  double dice = 0, iou = 0, volumetric_similarity = 0;
  double volume_pred_ml = 0, volume_ref_ml = 0;
  double hd_mm = 0, hd95_mm = 0, assd_mm = 0;  // by the SurfaceConvention of the options
  std::vector<double> nsd;                     // one for each tolerance of the options
};

struct SegmentationMetricsOptions {
  SurfaceConvention convention = SurfaceConvention::kSurfaceArea;
  std::vector<double> tolerances_mm{1.0, 2.0};
  bool surface = true;  // false: overlap and volumes only; the distances are nan
};

/// Metrics of one structure, given as masks (nonzero = inside).
/// Shapes   both [Z,Y,X], equal; `ignored` too, or no data: its nonzero voxels are not counted and in neither mask.
///          spacing_mm Z, Y, X.
/// Errors   as surface_distances().
SegmentationMetrics segmentation_metrics(const View<const uint8_t, 3>& prediction, const View<const uint8_t, 3>& reference,
                                         const std::array<double, 3>& spacing_mm, const SegmentationMetricsOptions& options = {},
                                         const ParallelFor& parallel = serial_for, const View<const uint8_t, 3>& ignored = {});

/// The metrics with `policy` applied to what is undefined; `diagonal_mm` is the length of the image's diagonal.
SegmentationMetrics with_policy(SegmentationMetrics m, EmptyPolicy policy, double diagonal_mm);

/// Length in mm of the diagonal of a grid, voxel borders included.
double diagonal_mm(const std::array<int64_t, 3>& shape, const std::array<double, 3>& spacing_mm);

/// How many cases of a structure had it where. The four sum to the number of cases.
struct PresenceCounts {
  int64_t in_both = 0, only_in_reference = 0, only_in_prediction = 0, in_neither = 0;
  void add(const OverlapCounts& c);
};

/// Mean of the values that are not nan, and how many were used and left out.
struct MetricMean {
  double mean = std::numeric_limits<double>::quiet_NaN();
  int64_t used = 0, excluded = 0;
};
MetricMean mean_of(const std::vector<double>& values);

}  // namespace fovea::train
