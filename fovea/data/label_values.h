#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "fovea/core/volume.h"
#include "fovea/data/dataset.h"

namespace fovea::data {

/// From voxel values in label files to classes: class k is labels[k].
class ClassLookup {
 public:
  /// Errors  ArgumentError: a value outside 0..65535, or one that two classes share.
  explicit ClassLookup(const std::vector<LabelClass>& labels);
  /// -1 when no class has this value.
  int of(int64_t value) const { return value >= 0 && value < int64_t(class_of_.size()) ? class_of_[value] : -1; }

 private:
  std::vector<int> class_of_;
};

/// Element type that holds `classes` class indices: u8 up to 256 classes, else i16.
DType class_dtype(int64_t classes);

/// A label file as class indices (u8 or i16, see class_dtype) on the file's own grid.
/// Errors  IoError: missing, unreadable, several channels, values that are no integers or belong to no class (which and
///         how many voxels).
Volume read_classes(const std::filesystem::path& path, const std::vector<LabelClass>& labels);
Volume to_classes(const Volume& label, const std::filesystem::path& path, const std::vector<LabelClass>& labels);

}  // namespace fovea::data
