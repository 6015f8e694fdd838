#pragma once
#include <memory>
#include <string>
#include <vector>

#include <torch/types.h>

#include "fovea/core/parallel.h"
#include "fovea/core/volume.h"
#include "fovea/data/dataset.h"
#include "fovea/data/plan.h"
#include "fovea/data/voxels.h"

namespace fovea::data {

/// A case as the network sees it, and the way back to its file.
struct Preprocessed {
  std::string id;
  torch::Tensor image;                         // [C,Z,Y,X] f32, normalised, on `grid`
  torch::Tensor label;                         // [Z,Y,X] u8 or i16 class indices; undefined when the case has none
  Geometry source;                             // grid of the file
  Orientation orientation;                     // source array -> canonical array
  Geometry canonical;                          // grid of the reoriented, uncropped array
  Box box;                                     // what was kept of the canonical array
  Geometry grid;                               // grid of `image`: canonical, cropped, at the plan's spacing
  std::shared_ptr<const SourceHeader> header;  // of the (first) image file
  std::vector<int> class_values;               // voxel value that class k is written with

  /// The canonical cropped shape at the source's spacing: the other shape that restore_labels() takes.
  const std::array<int64_t, 3>& native_shape() const { return box.shape; }
};

/// Reads a case and brings it into the plan's form:
///   1 reorient to canonical axes (x right, y front, z up), exact   2 crop, if the plan says so
///   3 normalise each channel (see Normalisation)                   4 resample (see resample.h) to plan.spacing_mm
/// An axis whose size would not change is not resampled: at equal spacing voxels are copied bit for bit.
/// Label values become class indices; a label box outside the non-zero box is not cut off.
/// Errors  IoError naming the file: missing, unreadable, channels or grids that do not match, NaN or infinite voxels
///         (count and first voxel), label values without a class. ArgumentError: plan.validate().
/// Memory  the stored image + one channel in f32 at both resolutions; deterministic for any `parallel`.
Preprocessed preprocess(const Case& one, const Plan& plan, const ParallelFor& parallel = serial_for);

/// The same from volumes in memory; `label` may be null. `id` names the case in messages.
Preprocessed preprocess(const std::string& id, const std::vector<Volume>& images, const Volume* label, const Plan& plan,
                        const ParallelFor& parallel = serial_for);

/// Class indices back on the grid of the file: resampled by nearest neighbour, put into the crop's place (class 0
/// outside), reoriented, classes replaced by their voxel values. `labels` is an integer tensor [Z,Y,X] on p.grid, or of
/// p.native_shape() when the caller has already resampled (ResampleArgmax does it from scores, which is smoother).
/// The volume is u8 (u16 if a value is above 255) and carries the source's header. Round trips are exact at equal
/// spacing.
/// Errors  ArgumentError: shape, dtype, or a class that the plan does not have.
Volume restore_labels(const torch::Tensor& labels, const Preprocessed& p, const ParallelFor& parallel = serial_for);

/// Float maps [Z,Y,X] or [C,Z,Y,X] (on p.grid or of p.native_shape()) back on the grid of the file, linearly; `outside`
/// is the value beyond the crop. Gives an f32 volume with C channels and the source's header. Errors: ArgumentError.
Volume restore_map(const torch::Tensor& map, const Preprocessed& p, float outside = 0,
                   const ParallelFor& parallel = serial_for);

}  // namespace fovea::data
