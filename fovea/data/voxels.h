#pragma once
#include <array>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fovea/core/error.h"
#include "fovea/core/geometry.h"
#include "fovea/core/volume.h"
#include "fovea/data/dataset.h"

namespace fovea::data {

/// A box of voxels, Z, Y, X.
struct Box {
  std::array<int64_t, 3> begin{0, 0, 0}, shape{0, 0, 0};

  int64_t voxels() const { return shape[0] * shape[1] * shape[2]; }
  /// The smallest box that holds both; an empty one adds nothing.
  Box united(const Box& other) const;
};

/// The part of a view inside a box.
template <class T>
View<T, 3> crop(const View<T, 3>& v, const Box& box) {
  return {&v(box.begin[0], box.begin[1], box.begin[2]), box.shape, v.stride};
}

/// Calls f(view) with channel `channel` of a volume as a contiguous View<const T, 3> of its stored type T.
/// Errors  ArgumentError for 16-bit floats, which no image format of ours stores.
template <class F>
void visit_channel(const Volume& volume, int64_t channel, F&& f);

/// Voxels that are NaN or infinite: how many and the first, as index (x, y, z) and channel. Nothing when all are
/// finite.
struct NonFinite {
  int64_t count = 0;
  std::array<int64_t, 3> first_xyz{};
  int64_t first_channel = 0;
};
std::optional<NonFinite> find_non_finite(const Volume& volume);
/// "3 NaN or infinite voxels, the first at voxel (x, y, z) = (4, 0, 2)"
std::string to_string(const NonFinite& bad);

/// Voxels of each value in a label file of one channel, ascending.
/// Errors  IoError(path): several channels, or values that are no integers.
struct LabelCounts {
  std::map<int64_t, int64_t> voxels;
};
LabelCounts count_label_values(const Volume& label, const std::filesystem::path& path);

/// Smallest box that holds every voxel that is not 0, in the array order of the volume; empty if there is none.
Box non_zero_box(const Volume& volume);

/// A box of the source array as a box of the array after `o` (source_shape: Z, Y, X of the source).
Box reorient(const Box& box, const std::array<int64_t, 3>& source_shape, const Orientation& o);

/// io::read_image without its remarks on odd but readable files, which a run would repeat for each case and epoch
/// (`fovea info FILE` shows them). `what`, as in "image", is for the message when the file is missing. Errors: IoError.
Volume read_volume(const std::filesystem::path& path, const char* what);

/// Reads the images of a case: one volume a file. The files together hold `channels` channels on one grid.
/// Errors  IoError naming the file: missing, unreadable, number of channels, another grid than the first file's.
std::vector<Volume> read_images(const Case& one, int64_t channels);

/// 1 where a volume is not 0, u8 on the same grid. Errors: ArgumentError for several channels.
Volume foreground_of(const Volume& label);

/// One channel of an image after `o`, the part inside `box` of it, as floats [Z, Y, X].
std::vector<float> read_channel(const Volume& image, int64_t channel, const Orientation& o, const Box& box);

/// The grid of a box of `g`: every voxel keeps its place.
Geometry cropped(const Geometry& g, const Box& box);

/// True when two grids of files are meant to be the same: equal shape, corners closer than a hundredth of a voxel.
bool same_place(const Geometry& a, const Geometry& b);

template <class F>
void visit_channel(const Volume& volume, int64_t channel, F&& f) {
  if (volume.dtype == DType::kF16 || volume.dtype == DType::kBF16)
    throw ArgumentError("volume: 16-bit floats are not supported here, convert to f32");
  visit_dtype(volume.dtype, [&](auto zero) {
    using T = decltype(zero);
    f(View<const T, 3>::contiguous(volume.as<T>().data() + channel * volume.geometry.voxels(), volume.geometry.shape));
  });
}

}  // namespace fovea::data
