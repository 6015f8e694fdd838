#pragma once
#include <array>
#include <cstdint>
#include <string>

#include "fovea/core/view.h"

namespace fovea {

/// 3x4 matrix, row-major; the fourth row is 0 0 0 1.
using Affine = std::array<std::array<double, 4>, 3>;
using Point = std::array<double, 3>;

/// Where a voxel grid lies in the patient. Arrays are Z, Y, X (X fastest); the affine takes an index in the order of the
/// file formats, (x, y, z), to millimetres in RAS+ (x to the patient's right, y to the front, z up).
struct Geometry {
  std::array<int64_t, 3> shape{1, 1, 1};  // Z, Y, X
  Affine affine{{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}}};

  int64_t voxels() const { return shape[0] * shape[1] * shape[2]; }
  /// Distance of neighbouring voxels along Z, Y, X: the lengths of the affine's columns.
  std::array<double, 3> spacing_mm() const;
  /// Millimetres of an index (x, y, z), which need not be integral.
  Point to_mm(const Point& xyz) const;
  /// Index (x, y, z) of a point in millimetres. Errors: ArgumentError when the affine is singular.
  Point to_index(const Point& mm) const;
  /// Direction of the x, y and z axes, e.g. "RAS", "LPS": the patient side that each mostly points to.
  std::string axis_codes() const;
  double voxel_volume_mm3() const;
  bool is_singular() const;
};

/// Same shape, and no corner of the grid further apart than `tolerance_mm`.
bool same_grid(const Geometry& a, const Geometry& b, double tolerance_mm = 1e-3);

/// "181x217x181 voxels (x, y, z), spacing 1x1x1 mm, RAS, origin -90 -126 -72": for messages.
std::string to_string(const Geometry& g);

/// A permutation and reversal of array axes. Target axis a (0 = Z, 1 = Y, 2 = X) is source axis axis[a], reversed if flip[a].
struct Orientation {
  std::array<int, 3> axis{0, 1, 2};
  std::array<bool, 3> flip{false, false, false};

  bool is_identity() const { return axis == std::array{0, 1, 2} && flip == std::array{false, false, false}; }
  Orientation inverse() const;
};

/// The reorientation after which x, y and z point as nearly as possible to right, anterior and superior.
Orientation to_canonical(const Geometry& g);

/// The geometry of an array after `o`: every voxel keeps its place in millimetres.
Geometry reorient(const Geometry& g, const Orientation& o);

/// The array after `o` as a strided view of the same memory (strides may be negative).
template <class T>
View<T, 3> reorient(const View<T, 3>& v, const Orientation& o) {
  View<T, 3> out;
  out.data = v.data;
  for (int a = 0; a < 3; ++a) {
    const int s = o.axis[a];
    out.shape[a] = v.shape[s], out.stride[a] = o.flip[a] ? -v.stride[s] : v.stride[s];
    if (o.flip[a]) out.data += (v.shape[s] - 1) * v.stride[s];
  }
  return out;
}

}  // namespace fovea
