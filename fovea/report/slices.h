#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fovea/core/dtype.h"
#include "fovea/core/geometry.h"
#include "fovea/core/view.h"
#include "fovea/core/volume.h"
#include "fovea/report/image.h"

namespace fovea::report {

/// A 3-D array of any element type, owned by somebody else; strides count bytes. Nothing is copied: a slice is read as
/// it is drawn, so a scan of any size costs no memory here.
struct Voxels {
  DType dtype = DType::kF32;
  View<const std::byte, 3> bytes;  // Z, Y, X

  Voxels() = default;
  template <class T>
  Voxels(const View<T, 3>& v) : dtype(dtype_of<std::remove_const_t<T>>::value) {
    bytes = {reinterpret_cast<const std::byte*>(v.data), v.shape, v.stride};
    for (int64_t& s : bytes.stride) s *= static_cast<int64_t>(sizeof(T));
  }
  /// One channel of a volume, which must outlive this. Errors: ArgumentError when there is no such channel, or the
  /// elements are f16 or bf16.
  explicit Voxels(const Volume& volume, int64_t channel = 0);

  bool empty() const { return bytes.data == nullptr; }
  double at(int64_t z, int64_t y, int64_t x) const;
};

/// Grey values: `low` and below are black, `high` and above white.
struct IntensityWindow {
  double low = 0, high = 1;
};

/// The window between two percentiles (0..100) of the finite voxels; of large volumes, of a regular subset of about a
/// million. A constant or wholly non-finite image gives a window of width 1.
IntensityWindow window_from_percentiles(const Voxels& image, double low_percent = 1, double high_percent = 99.5);

/// Name and colour of a label value.
struct LabelStyle {
  int64_t value = 0;
  std::string name;
  Colour colour;
};

/// One style a name, values 1, 2, ..., colours of category_colour.
std::vector<LabelStyle> label_styles(const std::vector<std::string>& names);

/// Labels drawn over the image: a fill of `alpha` and an outline of one pixel. Values without a style are not drawn.
struct LabelLayer {
  Voxels labels;
  std::vector<LabelStyle> styles;
  double alpha = 0.35;  // 0: no fill
  bool outline = true;
};

/// A map of weights drawn over the image in heat_colour; the opacity grows with the weight, up to `alpha`.
struct HeatLayer {
  Voxels values;
  double high = 0;  // value of the brightest colour; 0: the map's largest finite value. Below or equal to 0: not drawn
  double alpha = 0.8;
};

enum class Plane { kAxial, kCoronal, kSagittal };
/// Radiological: the patient's right is on the left of axial and coronal pictures. Neurological: on the right.
/// Sagittal pictures always look from the patient's left: the front is on the left.
enum class Convention { kRadiological, kNeurological };

std::string to_string(Plane plane);
/// "radiological convention: the patient's right is on the left of the picture".
std::string to_string(Convention convention);

/// An image and what lies over it, all on the grid of `geometry`.
struct Scene {
  Voxels image;
  Geometry geometry;
  IntensityWindow window;
  std::vector<LabelLayer> labels;  // later ones on top
  std::optional<HeatLayer> heat;   // above the image, below the labels

  Scene() = default;
  /// The first channel of a volume that outlives the scene, windowed by window_from_percentiles.
  explicit Scene(const Volume& volume);
  Scene(const Voxels& image, const Geometry& geometry);
};

struct SliceOptions {
  Convention convention = Convention::kRadiological;
  double pixel_mm = 0;     // edge of a square pixel; 0: the finest spacing of the grid
  bool markers = true;     // side letters at the four edges, the slice's position in mm at the lower left
  bool crosshair = false;  // through `voxel`, open in the middle
  std::optional<std::array<Point, 2>> crop_mm;  // lowest and highest corner (RAS) of the part to draw
};

/// The slice through `voxel` (an index Z, Y, X of the scene's own arrays, whatever their orientation). The picture is
/// true to scale: pixels are square in mm, grey values linear between voxels, labels and heat of the nearest voxel.
/// Oblique grids are cut along their own axes; the letters name the nearest patient axis.
/// Errors: ArgumentError when the voxel lies outside, a layer has another shape, or the picture would pass 4096 pixels.
Image draw_slice(const Scene& scene, Plane plane, const std::array<int64_t, 3>& voxel,
                 const SliceOptions& options = {});

/// `count` voxels for draw_slice, equally spaced along the plane's normal over the part where `labels` has a styled
/// value (the whole grid when it has none anywhere), through the middle of that part in the other two axes.
std::vector<std::array<int64_t, 3>> slices_through(const Scene& scene, const LabelLayer& labels, Plane plane,
                                                   int count);

/// Axial, coronal and sagittal slice through a voxel, side by side.
Image draw_three_planes(const Scene& scene, const std::array<int64_t, 3>& voxel, const SliceOptions& options = {});

/// A horizontal bar of heat_colour from 0 on the left to 1 on the right.
Image heat_bar(int64_t width, int64_t height);

}  // namespace fovea::report
