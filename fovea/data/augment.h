#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "fovea/data/patch_sampler.h"

namespace fovea::data {

/// Random changes of a training patch. Each is applied with its probability; ranges are drawn uniformly. Spatial
/// triples are Z, Y, X; the arrays are canonical, so X runs to the patient's right, Y to the front, Z up.
///
/// Mirroring left and right (flip[2]) makes a left structure look like a right one: when classes are lateralised,
/// either switch it off or give the pairs of classes to exchange in flip_x_swaps.
struct AugmentConfig {
  std::array<bool, 3> flip{true, true, true};
  float flip_probability = 0.5f;  // of each switched-on axis
  std::vector<std::array<int, 2>> flip_x_swaps;

  float rotation_probability = 0.2f;
  std::array<float, 3> rotation_deg{30, 30, 30};  // about Z, Y, X: from -r to r
  float scale_probability = 0.2f;
  std::array<float, 2> scale{0.7f, 1.4f};  // above 1 enlarges
  bool scale_each_axis = false;
  float translation_probability = 0;
  std::array<float, 3> translation_vox{0, 0, 0};
  float elastic_probability = 0;
  float elastic_grid_vox = 16;             // distance of control points, voxels of the finest axis
  std::array<float, 2> elastic_vox{1, 3};  // root mean square displacement an axis, voxels of the finest axis

  float noise_probability = 0.1f;
  std::array<float, 2> noise_deviation{0, 0.3f};  // in units of the normalised image
  float blur_probability = 0.2f;
  std::array<float, 2> blur_sigma_vox{0.5f, 1};
  float brightness_probability = 0.15f;
  std::array<float, 2> brightness{0.75f, 1.25f};
  float contrast_probability = 0.15f;
  std::array<float, 2> contrast{0.75f, 1.25f};
  float low_resolution_probability = 0.25f;
  std::array<float, 2> low_resolution_zoom{0.5f, 1};
  float gamma_inverted_probability = 0.1f;
  float gamma_probability = 0.3f;
  std::array<float, 2> gamma{0.7f, 1.5f};

  template <class V>
  void visit(V& v) {
    v("flip", flip, "axes that may be mirrored: Z, Y, X; X exchanges left and right");
    v("flip_probability", flip_probability, "of each such axis");
    v("flip_x_swaps", flip_x_swaps, "pairs of classes to exchange when X is mirrored, e.g. [[1, 2]]");
    v("rotation_probability", rotation_probability, "chance of a rotation");
    v("rotation_deg", rotation_deg, "largest angle about Z, Y, X in degrees");
    v("scale_probability", scale_probability, "chance of scaling");
    v("scale", scale, "smallest and largest factor; above 1 enlarges");
    v("scale_each_axis", scale_each_axis, "draw a factor for each axis");
    v("translation_probability", translation_probability, "chance of a shift");
    v("translation_vox", translation_vox, "largest shift along Z, Y, X in voxels");
    v("elastic_probability", elastic_probability, "chance of a smooth random deformation");
    v("elastic_grid_vox", elastic_grid_vox, "distance of its control points, in voxels of the finest axis");
    v("elastic_vox", elastic_vox, "range of its root mean square displacement along each axis, in the same voxels");
    v("noise_probability", noise_probability, "chance of Gaussian noise");
    v("noise_deviation", noise_deviation, "range of its standard deviation, in units of the normalised image");
    v("blur_probability", blur_probability, "chance of Gaussian blur");
    v("blur_sigma_vox", blur_sigma_vox, "range of its width in voxels");
    v("brightness_probability", brightness_probability, "chance of a factor on all values");
    v("brightness", brightness, "range of the factor");
    v("contrast_probability", contrast_probability, "chance of a factor about the mean, clipped to the old range");
    v("contrast", contrast, "range of the factor");
    v("low_resolution_probability", low_resolution_probability, "chance of sampling down (nearest) and up (linear)");
    v("low_resolution_zoom", low_resolution_zoom, "range of the size factor of the small patch");
    v("gamma_inverted_probability", gamma_inverted_probability, "chance of gamma on the negated values");
    v("gamma_probability", gamma_probability, "chance of gamma");
    v("gamma", gamma, "range of the exponent; mean and deviation are kept");
  }
  /// Errors  ArgumentError naming the first field out of range.
  void validate() const;
};

/// "none": every probability 0. "nnunet": the defaults above, close to nnU-Net's. "strong": nnunet with elastic
/// deformation and more rotation and scaling, for few scans. Errors: ArgumentError naming the nearest preset.
AugmentConfig augment_preset(const std::string& name);

/// A volume to cut patches from: what preprocess() gives, contiguous.
template <class T>
struct PatchSource {
  const float* image = nullptr;  // [C,Z,Y,X]
  const T* label = nullptr;      // [Z,Y,X]; null: none
  int64_t channels = 1;
  std::array<int64_t, 3> shape{1, 1, 1};
  std::array<double, 3> spacing_mm{1, 1, 1};
};

/// One spatial change: patch voxel p (Z, Y, X, relative to the patch centre) samples the volume at
///   centre + matrix * (p * mirror) + translation + displacement(p),   centre = begin + (patch - 1) / 2.
struct SpatialTransform {
  std::array<std::array<double, 3>, 3> matrix{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  std::array<bool, 3> mirror{false, false, false};
  std::array<double, 3> translation_vox{0, 0, 0};
  std::array<int64_t, 3> control_shape{0, 0, 0};  // 0: no deformation
  std::array<double, 3> control_step_vox{1, 1, 1};
  std::vector<float> control;  // [3, control_shape] cubic B-spline coefficients, source voxels
};

/// Draws a transform. Rotations are about the patient's axes in mm, so they stay rotations on anisotropic grids.
SpatialTransform draw_spatial(const AugmentConfig& config, const std::array<int64_t, 3>& patch,
                              const std::array<double, 3>& spacing_mm, const SampleKey& key);

/// Samples a patch straight from the volume, in one interpolation: image [C,z,y,x] trilinear, label [z,y,x] nearest.
/// What lies outside the volume is 0 (the mean of a z-scored image) with label 0; what lies outside the patch is real
/// voxels. An identity transform copies bit for bit. `label` may be null.
/// Cost  about 10 ns a voxel on one core, twice that with deformation (one channel).
template <class T>
void sample_patch(const PatchSource<T>& source, const std::array<int64_t, 3>& begin,
                  const std::array<int64_t, 3>& patch, const SpatialTransform& transform, float* image, int64_t* label);

/// Changes intensities in place, in the order of AugmentConfig: noise, blur, brightness, contrast, low resolution,
/// gamma on negated values, gamma. Whether a change happens is drawn for the patch, its strength for each channel.
/// image [C,z,y,x].
void augment_intensity(const AugmentConfig& config, const SampleKey& key, int64_t channels,
                       const std::array<int64_t, 3>& patch, float* image);

/// sample_patch with a drawn transform, the class exchange of flip_x_swaps, then augment_intensity.
template <class T>
void augmented_patch(const PatchSource<T>& source, const std::array<int64_t, 3>& begin,
                     const std::array<int64_t, 3>& patch, const AugmentConfig& config, const SampleKey& key,
                     float* image, int64_t* label);

}  // namespace fovea::data
