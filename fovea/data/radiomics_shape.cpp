#include <algorithm>
#include <cmath>
#include <numbers>

#include "fovea/data/mask_surface.h"
#include "fovea/data/radiomics_region.h"
#include "fovea/data/symmetric_eigenvalues.h"

namespace fovea::data {

std::vector<double> shape_features(const Region& region) {
  const auto view = View<const uint8_t, 3>::contiguous(region.inside.data(), region.shape);
  const MaskSurface surface = mask_surface(view, region.spacing_mm);
  // Covariance of voxel centres in mm: the ellipsoid of the same one has axes of 4 sqrt(eigenvalue).
  std::array<double, 3> mean{};
  const auto each = [&](auto&& f) {
    for (int64_t z = 0; z < region.shape[0]; ++z)
      for (int64_t y = 0; y < region.shape[1]; ++y)
        for (int64_t x = 0; x < region.shape[2]; ++x)
          if (view(z, y, x))
            f(std::array{double(z) * region.spacing_mm[0], double(y) * region.spacing_mm[1],
                         double(x) * region.spacing_mm[2]});
  };
  each([&](const std::array<double, 3>& p) {
    for (int a = 0; a < 3; ++a) mean[a] += p[a];
  });
  for (double& m : mean) m /= double(region.voxels);
  std::vector<double> covariance(9, 0);
  each([&](const std::array<double, 3>& p) {
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b <= a; ++b) covariance[3 * a + b] += (p[a] - mean[a]) * (p[b] - mean[b]);
  });
  for (double& c : covariance) c /= double(region.voxels);
  std::vector<double> lengths = symmetric_eigenvalues(covariance, 3);
  for (double& l : lengths) l = 4 * std::sqrt(std::max(l, 0.0));
  const double voxel_mm3 = region.spacing_mm[0] * region.spacing_mm[1] * region.spacing_mm[2];
  return {lengths[1] / lengths[2],
          lengths[0] / lengths[2],
          lengths[0],
          lengths[2],
          surface.diameter_in_plane_mm[1],
          surface.diameter_in_plane_mm[2],
          surface.diameter_in_plane_mm[0],
          surface.diameter_mm,
          surface.volume_mm3,
          lengths[1],
          std::cbrt(36 * std::numbers::pi * surface.volume_mm3 * surface.volume_mm3) / surface.area_mm2,
          surface.area_mm2,
          surface.area_mm2 / surface.volume_mm3,
          voxel_mm3 * double(region.voxels)};
}

}  // namespace fovea::data
