#pragma once
#include <array>
#include <cstdint>
#include <vector>

namespace fovea::data {

/// A volume as a cubic B-spline that passes through every voxel; beyond its borders it is mirrored about the outermost
/// voxel centres.
/// Cost     O(voxels) to make and to hold, 64 products a sample
/// Source   Unser, Aldroubi & Eden 1993, "B-spline signal processing", part II
class CubicSpline {
 public:
  /// voxels: [Z, Y, X], contiguous.
  CubicSpline(std::vector<double> voxels, const std::array<int64_t, 3>& shape);
  /// The value at an index (z, y, x) within the grid, borders half a voxel beyond the outermost centres.
  double at(const std::array<double, 3>& index) const;

 private:
  std::array<int64_t, 3> shape_;
  std::vector<double> coefficient_;
};

}  // namespace fovea::data
