#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fovea/core/dtype.h"
#include "fovea/core/geometry.h"

namespace fovea {

/// The header a volume was read with, kept byte for byte so that a result can be written on exactly the same grid.
struct SourceHeader {
  std::string format;            // "nifti1", "nifti2", "nrrd"
  std::vector<std::byte> bytes;  // as in the file, extensions included
};

/// Voxels with their place in the patient: what readers return and writers take.
struct Volume {
  Geometry geometry;
  int64_t channels = 1;         // time points or components; slowest axis
  DType dtype = DType::kF32;
  std::vector<std::byte> data;  // [channels, Z, Y, X], contiguous
  std::shared_ptr<const SourceHeader> header;  // null when the volume was made, not read

  static Volume zeros(const Geometry& g, DType dtype, int64_t channels = 1) {
    return {g, channels, dtype, std::vector<std::byte>(size_t(channels * g.voxels()) * size_of(dtype)), nullptr};
  }
  int64_t size() const { return channels * geometry.voxels(); }
  /// The voxels as T, which must be the type of `dtype` (uint8_t also for bool).
  template <class T> std::span<T> as() { return {reinterpret_cast<T*>(data.data()), size_t(size())}; }
  template <class T> std::span<const T> as() const { return {reinterpret_cast<const T*>(data.data()), size_t(size())}; }
};

}  // namespace fovea
