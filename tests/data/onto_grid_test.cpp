#include "fovea/data/onto_grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"

namespace fovea::data {
namespace {

// Turned, sheared and mirrored.
Geometry oblique() { return {{6, 9, 7}, {{{-1.4, 0.3, 0.2, 11}, {0.5, 1.8, -0.1, -7}, {0.1, -0.2, 2.9, 4}}}}; }

template <class F>
Volume painted(const Geometry& g, const F& f, DType dtype = DType::kF32) {
  Volume v = Volume::zeros(g, dtype);
  int64_t at = 0;
  for (int64_t z = 0; z < g.shape[0]; ++z)
    for (int64_t y = 0; y < g.shape[1]; ++y)
      for (int64_t x = 0; x < g.shape[2]; ++x, ++at) {
        const double value = f(g.to_mm({double(x), double(y), double(z)}));
        if (dtype == DType::kF32)
          v.as<float>()[size_t(at)] = float(value);
        else
          v.as<int16_t>()[size_t(at)] = int16_t(value);
      }
  return v;
}

TEST(OntoGrid, ALinearFunctionOfThePlaceStaysItselfOnAnyGridInside) {
  const auto plane = [](const Point& p) { return 3 + 0.5 * p[0] - 0.25 * p[1] + 2 * p[2]; };
  const Volume source = painted(oblique(), plane);
  // Around the source's middle: the source covers all of it, and no corner lies beyond its outermost centres.
  const Point middle = oblique().to_mm({3, 4, 2.5});
  const Geometry grid{{4, 3, 5},
                      {{{0.5, 0, 0, middle[0] - 1}, {0, 0.6, 0, middle[1] - 0.6}, {0, 0, 0.7, middle[2] - 1}}}};
  const auto onto = onto_grid(source, grid, Interpolation::kLinear);
  EXPECT_EQ(onto.outside_share, 0);
  const Volume expected = painted(grid, plane);
  for (size_t i = 0; i < size_t(grid.voxels()); ++i)
    EXPECT_NEAR(onto.volume.as<float>()[i], expected.as<float>()[i], 1e-4);
}

TEST(OntoGrid, OntoItsOwnGridNothingChanges) {
  Rng rng(1, 0, 0);
  const Volume source = painted(oblique(), [&](const Point&) { return double(rng.normal()); });
  const auto onto = onto_grid(source, oblique(), Interpolation::kLinear);
  EXPECT_EQ(onto.outside_share, 0);
  for (size_t i = 0; i < size_t(source.size()); ++i)
    EXPECT_NEAR(onto.volume.as<float>()[i], source.as<float>()[i], 1e-5);
}

TEST(OntoGrid, LabelsKeepTheirValuesAndTypeAndAre0Beyond) {
  const Volume source = painted(
      oblique(), [](const Point& p) { return p[0] > 5 ? 7 : 3; }, DType::kI16);
  Geometry finer = oblique();
  for (auto& row : finer.affine)
    for (size_t c = 0; c < 3; ++c) row[c] /= 2;
  for (auto& n : finer.shape) n *= 3;  // half as far again as the source
  const auto onto = onto_grid(source, finer, Interpolation::kNearest);
  ASSERT_EQ(onto.volume.dtype, DType::kI16);
  for (const int16_t value : onto.volume.as<int16_t>()) EXPECT_TRUE(value == 0 || value == 3 || value == 7);
  EXPECT_GT(onto.outside_share, 0.5);
  EXPECT_EQ(onto.volume.as<int16_t>()[0], source.as<int16_t>()[0]);
}

TEST(OntoGrid, BeyondTheSourceIsItsSmallestValue) {
  const Volume source =
      painted({{2, 2, 2}, {{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}}}}, [](const Point& p) { return p[0] - 1000; });
  const Geometry longer{{1, 1, 5}, {{{1, 0, 0, -1}, {0, 1, 0, 0}, {0, 0, 1, 0}}}};
  const auto onto = onto_grid(source, longer, Interpolation::kLinear);
  EXPECT_THAT(onto.volume.as<float>(), ::testing::ElementsAre(-1000, -1000, -999, -1000, -1000));
  EXPECT_DOUBLE_EQ(onto.outside_share, 0.6);
}

TEST(OntoGrid, GridsThatDoNotOverlapAreRefusedWithBoth) {
  const Volume source = painted(oblique(), [](const Point&) { return 1.0; });
  Geometry far = oblique();
  far.affine[0][3] += 1000;
  EXPECT_THROW(
      {
        try {
          onto_grid(source, far, Interpolation::kLinear);
        } catch (const ArgumentError& error) {
          EXPECT_THAT(error.what(), ::testing::HasSubstr("do not overlap"));
          EXPECT_THAT(error.what(), ::testing::HasSubstr("1011"));
          throw;
        }
      },
      ArgumentError);
}

}  // namespace
}  // namespace fovea::data
