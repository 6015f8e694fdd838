#pragma once
#include "fovea/core/parallel.h"
#include "fovea/core/volume.h"

namespace fovea::data {

enum class Interpolation {
  kLinear,   ///< scans: f32
  kNearest,  ///< labels: values and type stay
};

/// A volume on another grid of the same patient.
struct OntoGrid {
  Volume volume;  // every channel, on the grid
  // Of its voxels, those that the source does not cover: they have the source's smallest value (labels: 0).
  double outside_share = 0;
};

/// Each voxel of `grid` reads the source where it lies in millimetres, whatever the two grids' spacing and orientation.
/// The source covers half a voxel beyond its outermost centres, where their value is repeated (as in ITK). Nothing is
/// smoothed: onto a grid that is coarser, fine detail is sampled, not averaged.
/// Errors   ArgumentError: no voxel of the grid lies in the source, a singular affine
/// Cost     O(voxels of the grid); deterministic for any `parallel`
OntoGrid onto_grid(const Volume& source, const Geometry& grid, Interpolation interpolation,
                   const ParallelFor& parallel = serial_for);

}  // namespace fovea::data
