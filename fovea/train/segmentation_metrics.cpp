#include "fovea/train/segmentation_metrics.h"

#include <cmath>

#include "fovea/core/error.h"

namespace fovea::train {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

double or_nan(double v) { return std::isfinite(v) ? v : kNan; }

}  // namespace

std::vector<OverlapCounts> overlap_counts(const View<const int32_t, 1>& prediction, const View<const int32_t, 1>& reference,
                                          int64_t labels, int32_t ignore_label) {
  const int64_t n = prediction.shape[0];
  if (n != reference.shape[0])
    throw ArgumentError("overlap_counts: prediction has " + std::to_string(n) + " voxels, reference " + std::to_string(reference.shape[0]) +
                        ", expected equal numbers");
  std::vector<OverlapCounts> counts(static_cast<size_t>(labels));
  const auto check = [&](const char* what, int32_t label, int64_t at) {
    if (label < 0 || label >= labels)
      throw ArgumentError("overlap_counts: " + std::string(what) + " has label " + std::to_string(label) + " at voxel " + std::to_string(at) +
                          ", expected 0 to " + std::to_string(labels - 1));
  };
  int64_t counted = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t p = prediction(i), r = reference(i);
    if (ignore_label >= 0 && r == ignore_label) continue;
    check("prediction", p, i), check("reference", r, i);
    ++counted;
    if (p == r) ++counts[p].tp;
    else ++counts[p].fp, ++counts[r].fn;
  }
  for (OverlapCounts& c : counts) c.tn = counted - c.tp - c.fp - c.fn;
  return counts;
}

std::string name_of(EmptyPolicy policy) { return policy == EmptyPolicy::kNanExcluded ? "nan-excluded" : "penalised"; }

EmptyPolicy empty_policy(std::string_view name) {
  for (EmptyPolicy p : {EmptyPolicy::kNanExcluded, EmptyPolicy::kPenalised})
    if (name == name_of(p)) return p;
  throw ArgumentError("unknown policy for empty structures '" + std::string(name) + "', expected nan-excluded or penalised");
}

SegmentationMetrics segmentation_metrics(const View<const uint8_t, 3>& prediction, const View<const uint8_t, 3>& reference,
                                         const std::array<double, 3>& spacing_mm, const SegmentationMetricsOptions& options,
                                         const ParallelFor& parallel, const View<const uint8_t, 3>& ignored) {
  if (ignored.data && ignored.shape == reference.shape && prediction.shape == reference.shape) {
    std::vector<uint8_t> p(size_t(prediction.size())), r(p.size());
    int64_t i = 0, excluded = 0;
    for (int64_t z = 0; z < ignored.shape[0]; ++z)
      for (int64_t y = 0; y < ignored.shape[1]; ++y)
        for (int64_t x = 0; x < ignored.shape[2]; ++x, ++i) {
          if (ignored(z, y, x)) ++excluded;
          else p[i] = prediction(z, y, x) != 0, r[i] = reference(z, y, x) != 0;
        }
    const auto view = [&](const std::vector<uint8_t>& v) { return View<const uint8_t, 3>::contiguous(v.data(), ignored.shape); };
    SegmentationMetrics m = segmentation_metrics(view(p), view(r), spacing_mm, options, parallel);
    m.counts.tn -= excluded;
    return m;
  }
  SegmentationMetrics m;
  if (options.surface || prediction.shape != reference.shape) {
    const SurfaceDistances d = surface_distances(prediction, reference, spacing_mm, options.convention, parallel);
    m.hd_mm = or_nan(hausdorff_mm(d)), m.hd95_mm = or_nan(hausdorff_mm(d, 95)), m.assd_mm = or_nan(average_distance_mm(d));
    const bool either_empty = d.prediction_to_reference.distance_mm.empty() || d.reference_to_prediction.distance_mm.empty();
    for (double t : options.tolerances_mm) m.nsd.push_back(either_empty ? kNan : surface_dice(d, t));
  } else {
    m.hd_mm = m.hd95_mm = m.assd_mm = kNan;
    m.nsd.assign(options.tolerances_mm.size(), kNan);
  }
  for (int64_t z = 0; z < reference.shape[0]; ++z)
    for (int64_t y = 0; y < reference.shape[1]; ++y)
      for (int64_t x = 0; x < reference.shape[2]; ++x) {
        const bool p = prediction(z, y, x) != 0, r = reference(z, y, x) != 0;
        m.counts.tp += p && r, m.counts.fp += p && !r, m.counts.fn += !p && r, m.counts.tn += !p && !r;
      }
  m.dice = m.counts.dice(), m.iou = m.counts.iou(), m.volumetric_similarity = m.counts.volumetric_similarity();
  const double voxel_ml = spacing_mm[0] * spacing_mm[1] * spacing_mm[2] / 1000;
  m.volume_pred_ml = double(m.counts.n_pred()) * voxel_ml, m.volume_ref_ml = double(m.counts.n_ref()) * voxel_ml;
  return m;
}

SegmentationMetrics with_policy(SegmentationMetrics m, EmptyPolicy policy, double diagonal_mm) {
  const bool no_pred = m.counts.n_pred() == 0, no_ref = m.counts.n_ref() == 0;
  if (policy == EmptyPolicy::kNanExcluded || !(no_pred || no_ref)) return m;
  const double score = no_pred && no_ref ? 1 : 0, distance = no_pred && no_ref ? 0 : diagonal_mm;
  m.dice = m.iou = m.volumetric_similarity = score;
  m.hd_mm = m.hd95_mm = m.assd_mm = distance;
  for (double& v : m.nsd) v = score;
  return m;
}

double diagonal_mm(const std::array<int64_t, 3>& shape, const std::array<double, 3>& spacing_mm) {
  return std::hypot(double(shape[0]) * spacing_mm[0], double(shape[1]) * spacing_mm[1], double(shape[2]) * spacing_mm[2]);
}

void PresenceCounts::add(const OverlapCounts& c) {
  const bool p = c.n_pred() > 0, r = c.n_ref() > 0;
  ++(p && r ? in_both : r ? only_in_reference : p ? only_in_prediction : in_neither);
}

MetricMean mean_of(const std::vector<double>& values) {
  MetricMean m;
  double sum = 0;
  for (double v : values) {
    if (std::isnan(v)) ++m.excluded;
    else sum += v, ++m.used;
  }
  if (m.used > 0) m.mean = sum / double(m.used);
  return m;
}

}  // namespace fovea::train
