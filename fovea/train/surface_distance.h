#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/core/parallel.h"
#include "fovea/core/view.h"

namespace fovea::train {

/// What counts as the surface of a mask, and how distances are weighted. They give different numbers for the same
/// pair of masks (docs/reference/metrics.md), so every result names the one it used.
enum class SurfaceConvention {
  /// DeepMind's `surface-distance`: the corners between voxels whose 2x2x2 neighbourhood is mixed, each weighted by the
  /// area of the surface that passes through it. The default: the weights make percentiles independent of how finely
  /// and how unevenly the surface was sampled.
  kSurfaceArea,
  /// MONAI: voxels of the mask with a face neighbour outside it, all of weight 1; percentiles interpolate linearly.
  kBorderVoxels,
  /// SimpleITK's HausdorffDistanceImageFilter: all voxels of the mask, inner ones too. Defines the maximum and the
  /// average only; HD95 and NSD are nan.
  kVoxelSets,
};

/// "surface-distance", "monai", "simpleitk".
std::string name_of(SurfaceConvention convention);
/// Errors  ArgumentError naming the nearest known name.
SurfaceConvention surface_convention(std::string_view name);

/// Surface elements of one mask: distance of each to the other mask's surface, ascending, and its weight.
struct DirectedDistances {
  std::vector<double> distance_mm;  // infinite when the other mask is empty
  std::vector<double> weight;       // mm^2 for kSurfaceArea, else 1
};

struct SurfaceDistances {
  SurfaceConvention convention = SurfaceConvention::kSurfaceArea;
  DirectedDistances prediction_to_reference, reference_to_prediction;  // no elements when that mask is empty
};

/// Distances between the surfaces of two masks (nonzero = inside), exact in double precision.
/// Shapes   both [Z,Y,X], equal. spacing_mm Z, Y, X. What lies outside the grid counts as outside the mask.
/// Errors   ArgumentError on unequal shapes or a spacing that is not positive and finite.
/// Cost     O(voxels of the bounding box of both masks) time; 12 bytes for each of them and 16 for each surface element.
/// Source   Nikolov et al. 2018, arXiv:1809.04430, supplement E (kSurfaceArea).
SurfaceDistances surface_distances(const View<const uint8_t, 3>& prediction, const View<const uint8_t, 3>& reference,
                                   const std::array<double, 3>& spacing_mm,
                                   SurfaceConvention convention = SurfaceConvention::kSurfaceArea,
                                   const ParallelFor& parallel = serial_for);

/// Hausdorff distance at a percentile in (0, 100]: the larger of the two directed percentiles, in mm. nan if both masks
/// are empty, infinite if one is.
double hausdorff_mm(const SurfaceDistances& d, double percentile = 100);

/// Average symmetric surface distance in mm: the weighted mean over the elements of both surfaces together; for
/// kVoxelSets the mean of the two directed means, as ITK. nan if both masks are empty, infinite if one is.
double average_distance_mm(const SurfaceDistances& d);

/// Weighted mean of one direction; nan without elements.
double directed_mean_mm(const DirectedDistances& d);

/// Normalised surface Dice: share of both surfaces that lies within `tolerance_mm` of the other. nan if both are empty.
double surface_dice(const SurfaceDistances& d, double tolerance_mm);

/// Squared distance of every voxel centre to the nearest nonzero voxel of `features`, infinite when there is none.
/// Shapes   features [Z,Y,X] any strides; result contiguous [Z,Y,X], mm^2.
/// Cost     O(voxels); separable lower envelopes of parabolas.
/// Source   Felzenszwalb and Huttenlocher 2012, "Distance transforms of sampled functions".
std::vector<double> squared_distance_mm2(const View<const uint8_t, 3>& features, const std::array<double, 3>& spacing_mm,
                                         const ParallelFor& parallel = serial_for);

/// Area in mm^2 of the surface inside a 2x2x2 neighbourhood, by code: voxel (z, y, x) of the neighbourhood sets bit
/// 7 - (4z + 2y + x). The surface cuts off the corners of the rarer kind through the midpoints of their edges (marching
/// cubes); a loop of more than three midpoints is triangulated so that its area in the unit cube is largest.
std::array<double, 256> surface_area_table_mm2(const std::array<double, 3>& spacing_mm);

}  // namespace fovea::train
