#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>

#include <torch/types.h>

#include "fovea/core/volume.h"
#include "fovea/data/voxels.h"

namespace fovea::data {

/// How a scan of any size becomes an array of one size.
struct FixedGridConfig {
  std::array<int64_t, 3> shape{32, 32, 32};
  double field_mm = 0;

  template <class V>
  void visit(V& v) {
    v("shape", shape, "voxels that each image is resampled to, Z, Y, X");
    v("field_mm", field_mm, "edge of the cube that is looked at, round the masked region's centre (without mask the scan's); 0 = the whole scan");
  }
  /// Errors  ArgumentError: a size below 1, a negative field.
  void validate() const;
};

/// A scan on such a grid.
struct FixedGrid {
  torch::Tensor voxels;  // [Z,Y,X] f32, mean 0 and deviation 1 over what was looked at
  torch::Tensor mask;    // [Z,Y,X] u8, 1 inside; undefined without a mask
  Geometry grid;         // canonical axes: where each voxel of it lies
  Box box;               // the voxels of the scan, in canonical axes, that it covers; may reach beyond the scan
};

/// Reads a scan (and the label image whose foreground is its mask): reorients to canonical axes, cuts the field out (beyond
/// the scan: its smallest value), normalises, resamples with anti-aliasing; masks by vote.
/// Errors  IoError naming the file: unreadable, several channels, NaN, a mask on another grid, or an empty one.
FixedGrid read_fixed_grid(const std::filesystem::path& image, const std::optional<std::filesystem::path>& mask, const FixedGridConfig& config);

}  // namespace fovea::data
