#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "fovea/core/geometry.h"
#include "fovea/core/parallel.h"
#include "fovea/core/view.h"

namespace fovea::data {

/// Resampling between axis-aligned grids of one field of view.
///
/// Convention. The outer borders of the first and last voxel stay where they are (torch's align_corners=False,
/// skimage's resize): output voxel i of n_out samples input index (i + 1/2) * n_in / n_out - 1/2, and beyond the
/// outermost centres the border value is repeated. A grid of n voxels of s mm becomes round(n * s / t) voxels for a
/// wanted t mm, so its true spacing is n * s / round(n * s / t): the field of view is exact, the spacing within half a
/// voxel's share.
/// All functions are deterministic for any ParallelFor (work is split by output planes) and need a few
/// planes of memory per thread beside input and output. Equal sizes copy bit for bit.

/// max(1, round(size * spacing / wanted)).
int64_t resampled_size(int64_t size, double spacing_mm, double wanted_mm);
/// The shape (Z, Y, X) of `g` at a wanted spacing (Z, Y, X, mm).
std::array<int64_t, 3> resampled_shape(const Geometry& g, const std::array<double, 3>& wanted_mm);
/// The grid of `shape` voxels over the field of view of `g`.
Geometry resampled_geometry(const Geometry& g, const std::array<int64_t, 3>& shape);

/// Weights of one axis: out[i] = sum_t weight[i * taps + t] * in[first[i] + t]. Each row sums to 1; first + taps <=
/// n_in.
struct AxisWeights {
  int64_t taps = 1;
  std::vector<int64_t> first;
  std::vector<float> weight;
};

/// kOff: two taps. kOn: where an axis shrinks, the triangle is widened by the factor (torch's antialias=True), which
/// keeps thin structures from falling between samples; where it grows, the same as kOff.
enum class Antialias { kOff, kOn };
AxisWeights linear_weights(int64_t n_in, int64_t n_out, Antialias antialias);

/// Trilinear, separable. Cost: O(taps * n) an axis.
void resample_linear(const View<const float, 3>& in, const View<float, 3>& out, Antialias antialias,
                     const ParallelFor& parallel = serial_for);

/// The voxel whose cell holds the sample point: in[floor((i + 1/2) * n_in / n_out)] (torch's nearest-exact).
/// T: uint8_t, int16_t, int32_t or float.
template <class T>
void resample_nearest(const View<const T, 3>& in, const View<T, 3>& out, const ParallelFor& parallel = serial_for);

/// Labels by vote: the value with the largest sum of (anti-aliased) linear weights, as if every class were resampled on
/// its own and the arg-max taken; a tie goes to the smaller value. No one-hot copy is made. T: uint8_t or int16_t, not
/// negative.
template <class T>
void resample_vote(const View<const T, 3>& in, const View<T, 3>& out, const ParallelFor& parallel = serial_for);

/// Class scores to labels on another grid, without the scores at full resolution: slabs of score planes go in as they
/// become final, arg-max labels of a resampled plane come out as soon as its two input planes are there. Holds one
/// score plane of each class between calls. Plain trilinear (Antialias::kOff); a tie goes to the smaller class.
///   ResampleArgmax r(classes, {Z, Y, X}, labels_view);
///   r.push(slab0); r.push(slab1); ...   // [K, z, Y, X], consecutive in z
///   r.finish();
class ResampleArgmax {
 public:
  /// labels: the target grid, u8 (at most 256 classes). Errors: ArgumentError.
  ResampleArgmax(int64_t classes, const std::array<int64_t, 3>& score_shape, const View<uint8_t, 3>& labels,
                 ParallelFor parallel = serial_for);
  /// scores [K, z, Y, X], any strides, X contiguous; the next z planes. Errors: ArgumentError for a wrong shape or too
  /// many planes.
  void push(const View<const float, 4>& scores);
  /// Errors: ArgumentError when planes are missing.
  void finish() const;
  /// Planes of the target that are done.
  int64_t planes_done() const { return done_; }

 private:
  void plane(int64_t out_z, const View<const float, 4>& scores);

  int64_t classes_;
  std::array<int64_t, 3> shape_;
  View<uint8_t, 3> labels_;
  ParallelFor parallel_;
  AxisWeights z_, y_, x_;
  int64_t received_ = 0, done_ = 0;
  std::vector<float> last_plane_;  // [K, Y, X], plane received_ - 1
};

}  // namespace fovea::data
