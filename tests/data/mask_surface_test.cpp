#include "fovea/data/mask_surface.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

namespace fovea::data {
namespace {

MaskSurface surface_of(const std::vector<uint8_t>& mask, const std::array<int64_t, 3>& shape,
                       const std::array<double, 3>& mm = {1, 1, 1}) {
  return mask_surface(View<const uint8_t, 3>::contiguous(mask.data(), shape), mm);
}

TEST(MaskSurface, OfOneVoxelIsAnOctahedron) {
  const MaskSurface s = surface_of({1}, {1, 1, 1}, {2, 2, 2});
  EXPECT_NEAR(s.volume_mm3, 8.0 / 6, 1e-12);
  EXPECT_NEAR(s.area_mm2, 4 * std::sqrt(3), 1e-12);
  EXPECT_NEAR(s.diameter_mm, 2, 1e-12);
  for (const double d : s.diameter_in_plane_mm) EXPECT_NEAR(d, 2, 1e-12);
}

TEST(MaskSurface, OfABoxIsTheBoxWithItsEdgesAndCornersCutOff) {
  const std::array<int64_t, 3> n = {3, 4, 5};
  const MaskSurface s = surface_of(std::vector<uint8_t>(60, 1), n);
  // Edges lose a prism of legs 1/2, corners the rest up to their cube's single triangle.
  const double a = n[0] - 1, b = n[1] - 1, c = n[2] - 1;
  EXPECT_NEAR(s.volume_mm3, a * b * c + (a * b + b * c + a * c) + (a + b + c) / 2 + 1.0 / 6, 1e-12);
  EXPECT_NEAR(s.area_mm2, 2 * (a * b + b * c + a * c) + 4 * (a + b + c) * std::sqrt(0.5) + std::sqrt(3), 1e-12);
  EXPECT_NEAR(s.diameter_mm, std::sqrt(n[2] * n[2] + b * b + a * a), 1e-12);
}

TEST(MaskSurface, OfABallComesNearTheSphere) {
  const int64_t n = 41;
  const std::array<double, 3> mm = {0.5, 0.25, 0.5};
  const double radius = 8;
  std::vector<uint8_t> mask;
  for (int64_t z = 0; z < n; ++z)
    for (int64_t y = 0; y < 2 * n; ++y)
      for (int64_t x = 0; x < n; ++x)
        mask.push_back(std::hypot((z - 20) * mm[0], (y - 40) * mm[1], (x - 20) * mm[2]) <= radius);
  const MaskSurface s = surface_of(mask, {n, 2 * n, n}, mm);
  EXPECT_NEAR(s.volume_mm3, 4.0 / 3 * std::numbers::pi * std::pow(radius, 3), 0.02 * s.volume_mm3);
  // The corners lie halfway between centres, not on the sphere: the steps add about a tenth to the area.
  const double sphere = 4 * std::numbers::pi * radius * radius;
  EXPECT_GT(s.area_mm2, sphere);
  EXPECT_LT(s.area_mm2, 1.15 * sphere);
  EXPECT_NEAR(s.diameter_mm, 2 * radius, 0.5);
}

// Every mask of 2 x 2 x 2 voxels: the surface is closed where no face is crosswise, so its volume does not depend on
// where it lies; and turning inside out keeps the area and turns the volume of the middle cube.
TEST(MaskSurface, IsClosedUnlessVoxelsLieCrosswise) {
  for (int corners = 1; corners < 256; ++corners) {
    std::vector<uint8_t> near(8), far(5 * 5 * 5, 0);
    bool crosswise = false;
    for (int i = 0; i < 8; ++i) {
      near[i] = corners >> i & 1;
      far[((i >> 2) + 3) * 25 + ((i >> 1 & 1) + 2) * 5 + (i & 1) + 1] = near[i];
    }
    const auto in = [&](int z, int y, int x) { return near[z * 4 + y * 2 + x] != 0; };
    for (int s = 0; s < 2; ++s) {
      crosswise |= in(s, 0, 0) == in(s, 1, 1) && in(s, 0, 1) == in(s, 1, 0) && in(s, 0, 0) != in(s, 0, 1);
      crosswise |= in(0, s, 0) == in(1, s, 1) && in(0, s, 1) == in(1, s, 0) && in(0, s, 0) != in(0, s, 1);
      crosswise |= in(0, 0, s) == in(1, 1, s) && in(0, 1, s) == in(1, 0, s) && in(0, 0, s) != in(0, 1, s);
    }
    const MaskSurface a = surface_of(near, {2, 2, 2}, {1.3, 0.7, 1.9}), b = surface_of(far, {5, 5, 5}, {1.3, 0.7, 1.9});
    EXPECT_NEAR(a.area_mm2, b.area_mm2, 1e-9) << corners;
    EXPECT_NEAR(a.diameter_mm, b.diameter_mm, 1e-9) << corners;
    if (!crosswise) {
      EXPECT_NEAR(a.volume_mm3, b.volume_mm3, 1e-9) << corners;
      EXPECT_GT(a.volume_mm3, 0) << corners;
    }
  }
}

TEST(MaskSurface, OfAnEmptyMaskIsNothing) {
  const MaskSurface s = surface_of(std::vector<uint8_t>(8, 0), {2, 2, 2});
  EXPECT_EQ(s.area_mm2, 0);
  EXPECT_EQ(s.volume_mm3, 0);
  EXPECT_EQ(s.diameter_mm, 0);
}

}  // namespace
}  // namespace fovea::data
