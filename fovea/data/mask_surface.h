#pragma once
#include <array>
#include <cstdint>

#include "fovea/core/view.h"

namespace fovea::data {

/// The surface between the voxels of a mask and the others, by marching cubes: triangles whose corners are the
/// midpoints between neighbouring voxel centres of which one is inside.
struct MaskSurface {
  double area_mm2 = 0;
  double volume_mm3 = 0;
  /// Largest distance of two corners in mm: of the same z (in a slice), of the same y, of the same x, of all.
  std::array<double, 3> diameter_in_plane_mm{};  // across Z, Y, X
  double diameter_mm = 0;
};

/// Where a face of a cube has its inside corners crosswise, the corners of the side (inside or outside) that does not
/// own the cube's last corner (z, y, x) = (1, 1, 0) are cut off one by one; two cubes that share such a face may see it
/// differently, which leaves a hole of that face in the surface. So does pyradiomics, whose figures these are.
///   mask   [Z, Y, X], not 0 inside; outside of the view is outside
/// Cost     O(voxels); diameters O(surface rows^2)
/// Source   Lorensen & Cline 1987; van Griethuysen et al. 2017 (pyradiomics' cshape)
MaskSurface mask_surface(const View<const uint8_t, 3>& mask, const std::array<double, 3>& spacing_mm);

}  // namespace fovea::data
