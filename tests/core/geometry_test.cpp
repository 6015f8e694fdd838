#include "fovea/core/geometry.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

namespace fovea {
namespace {

Geometry las_grid() {  // radiological order, anisotropic, off-centre
  Geometry g;
  g.shape = {4, 5, 6};
  g.affine = {{{-2, 0, 0, 10}, {0, 1.5, 0, -20}, {0, 0, 3, 5}}};
  return g;
}

TEST(Geometry, SpacingIsInArrayOrder) { EXPECT_EQ(las_grid().spacing_mm(), (std::array<double, 3>{3, 1.5, 2})); }

TEST(Geometry, AxisCodesNameThePatientSideThatEachIndexAxisPointsTo) {
  EXPECT_EQ(las_grid().axis_codes(), "LAS");
  Geometry sagittal;
  sagittal.affine = {{{0, 0, 1, 0}, {-1, 0, 0, 0}, {0, -1, 0, 0}}};
  EXPECT_EQ(sagittal.axis_codes(), "PIR");
}

TEST(Geometry, IndexAndMillimetresAreInverse) {
  Geometry g = las_grid();
  g.affine[0][1] = 0.3, g.affine[2][0] = -0.2;
  const Point index = g.to_index(g.to_mm({1, 2, 3}));
  EXPECT_NEAR(index[0], 1, 1e-12);
  EXPECT_NEAR(index[1], 2, 1e-12);
  EXPECT_NEAR(index[2], 3, 1e-12);
}

TEST(Geometry, ReorientingKeepsEveryVoxelAtItsPlace) {
  std::vector<Affine> affines = {las_grid().affine, {{{0, 0, 1, 0}, {-1, 0, 0, 7}, {0, -1, 0, 9}}}, {{{0, 2, 0, 1}, {0, 0, -3, 2}, {-1, 0, 0, 3}}}};
  for (const Affine& affine : affines) {
    Geometry g = las_grid();
    g.affine = affine;
    const Orientation o = to_canonical(g);
    const Geometry c = reorient(g, o);
    EXPECT_EQ(c.axis_codes(), "RAS");
    std::vector<int> voxels(g.voxels());
    std::iota(voxels.begin(), voxels.end(), 0);
    const auto source = View<int, 3>::contiguous(voxels.data(), g.shape);
    const auto canonical = reorient(source, o);
    ASSERT_EQ(canonical.shape, c.shape);
    for (int z = 0; z < c.shape[0]; ++z)
      for (int y = 0; y < c.shape[1]; ++y)
        for (int x = 0; x < c.shape[2]; ++x) {
          const Point from = g.to_index(c.to_mm({double(x), double(y), double(z)}));
          EXPECT_EQ(canonical(z, y, x), source(std::lround(from[2]), std::lround(from[1]), std::lround(from[0])));
        }
  }
}

TEST(Geometry, InverseOrientationRestoresTheGridExactly) {
  const Geometry g = las_grid();
  const Orientation o = to_canonical(g);
  EXPECT_TRUE(same_grid(reorient(reorient(g, o), o.inverse()), g, 0));
}

TEST(Geometry, SameGridSeesAShiftedOrigin) {
  Geometry g = las_grid();
  EXPECT_TRUE(same_grid(g, las_grid()));
  g.affine[1][3] += 0.01;
  EXPECT_FALSE(same_grid(g, las_grid()));
}

TEST(Geometry, ANonFiniteAffineIsSingular) {
  Geometry g;
  g.affine[0][0] = std::nan("");
  EXPECT_TRUE(g.is_singular());
}

}  // namespace
}  // namespace fovea
