#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

#include "fovea/core/volume.h"
#include "fovea/data/dataset.h"

namespace fovea::data {

/// A made-up scan: a body ellipsoid with smaller ellipsoids of several classes inside, noise and a smooth bias field,
/// on an oblique, anisotropic grid in any orientation. For tests and tutorials; whatever is reported on it must say
/// "phantom".
struct PhantomConfig {
  std::array<int64_t, 3> shape{24, 40, 36};  // Z, Y, X of the file's array; +-10 % from case to case
  std::array<double, 3> spacing_mm{2, 1, 1};
  int64_t structures = 2;  // foreground classes
  int64_t channels = 1;
  double oblique_deg = 10;   // largest tilt of the grid
  std::string axes = "LPS";  // directions of x, y, z (an axis code, e.g. RAS, PIR)
  double contrast = 40;      // between neighbouring structures
  double noise = 8;          // standard deviation
  double bias = 0.2;         // relative size of the bias field
  uint64_t seed = 1;

  template <class V>
  void visit(V& v) {
    v("shape", shape, "voxels Z, Y, X; varies by 10 % between cases");
    v("spacing_mm", spacing_mm, "voxel size Z, Y, X");
    v("structures", structures, "foreground classes");
    v("channels", channels, "image channels");
    v("oblique_deg", oblique_deg, "largest tilt of the grid");
    v("axes", axes, "patient directions of x, y and z, e.g. LPS");
    v("contrast", contrast, "intensity step between structures");
    v("noise", noise, "standard deviation of the noise");
    v("bias", bias, "relative size of the bias field");
    v("seed", seed, "of everything random");
  }
  /// Errors  ArgumentError naming the first field out of range.
  void validate() const;
};

struct Phantom {
  Volume image;  // i16, [channels, Z, Y, X]
  Volume label;  // u8, 0 background, 1.. structures
};

/// Phantom number `index`: depends on (config, index) alone.
Phantom make_phantom(const PhantomConfig& config, uint32_t index);

/// Writes `cases` phantoms (and `test_cases` unlabelled ones) as the nnU-Net dataset PARENT/NAME with dataset.json;
/// NAME is like "Dataset901_Phantom". Returns its folder. Errors: ArgumentError, IoError, ResourceError.
std::filesystem::path write_phantom_dataset(const std::filesystem::path& parent, const std::string& name,
                                            const PhantomConfig& config, int64_t cases, int64_t test_cases = 0);

/// The part of a volume inside a box (Z, Y, X of its array) with the geometry that keeps every voxel in its place: to
/// make several training cases of one scan. The header is dropped. Errors: ArgumentError when the box leaves the
/// volume.
Volume cut_box(const Volume& volume, const std::array<int64_t, 3>& begin, const std::array<int64_t, 3>& shape);

}  // namespace fovea::data
