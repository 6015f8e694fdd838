#include "fovea/train/surface_distance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"

namespace fovea::train {
namespace {

struct Mask {
  std::array<int64_t, 3> shape;
  std::vector<uint8_t> voxels;

  explicit Mask(const std::array<int64_t, 3>& s) : shape(s), voxels(size_t(s[0] * s[1] * s[2])) {}
  uint8_t& at(int64_t z, int64_t y, int64_t x) { return voxels[size_t((z * shape[1] + y) * shape[2] + x)]; }
  View<const uint8_t, 3> view() const { return View<const uint8_t, 3>::contiguous(voxels.data(), shape); }
  static Mask random(const std::array<int64_t, 3>& s, float density, uint32_t index) {
    Mask m(s);
    Rng rng(11, 0, index);
    for (uint8_t& v : m.voxels) v = rng.chance(density);
    return m;
  }
};

TEST(SquaredDistance, EqualsTheNearestOfAllFeatureVoxelsOnAnisotropicGrids) {
  const std::array<double, 3> spacing{2.5, 0.7, 1.1};
  uint32_t index = 0;
  for (const std::array<int64_t, 3>& shape : {std::array<int64_t, 3>{1, 1, 1}, {1, 1, 9}, {7, 1, 1}, {5, 6, 7}, {9, 2, 13}})
    for (float density : {0.02f, 0.3f, 1.0f}) {
      const Mask m = Mask::random(shape, density, index++);
      const auto found = squared_distance_mm2(m.view(), spacing);
      int64_t i = 0;
      for (int64_t z = 0; z < shape[0]; ++z)
        for (int64_t y = 0; y < shape[1]; ++y)
          for (int64_t x = 0; x < shape[2]; ++x, ++i) {
            double nearest = std::numeric_limits<double>::infinity();
            int64_t j = 0;
            for (int64_t a = 0; a < shape[0]; ++a)
              for (int64_t b = 0; b < shape[1]; ++b)
                for (int64_t c = 0; c < shape[2]; ++c, ++j)
                  if (m.voxels[size_t(j)])
                    nearest = std::min(nearest, std::pow(double(a - z) * spacing[0], 2) + std::pow(double(b - y) * spacing[1], 2) +
                                                    std::pow(double(c - x) * spacing[2], 2));
            if (std::isinf(nearest)) {
              EXPECT_TRUE(std::isinf(found[size_t(i)]));
            } else {
              EXPECT_NEAR(found[size_t(i)], nearest, 1e-12 * (1 + nearest));
            }
          }
    }
}

TEST(SquaredDistance, IsTheSameBitForBitWhenTheWorkIsSplitDifferently) {
  const Mask m = Mask::random({6, 17, 19}, 0.05f, 77);
  const ParallelFor backwards = [](int64_t n, int64_t grain, const ParallelBody& body) {
    for (int64_t end = n; end > 0; end -= std::min(end, grain)) body(end - std::min(end, grain), end);
  };
  EXPECT_EQ(squared_distance_mm2(m.view(), {1, 2, 3}), squared_distance_mm2(m.view(), {1, 2, 3}, backwards));
}

TEST(SurfaceAreaTable, GivesACubeFaceItsAreaAndACutCornerItsTriangle) {
  const auto table = surface_area_table_mm2({2, 3, 5});
  EXPECT_EQ(table[0], 0);
  EXPECT_EQ(table[255], 0);
  EXPECT_NEAR(table[0b00001111], 15, 1e-12);  // surface between two planes of z: spacing y times spacing x
  EXPECT_NEAR(table[0b01010101], 6, 1e-12);   // between two planes of x
  const double corner = 0.125 * std::hypot(15.0, 10.0, 6.0);
  for (int bit = 0; bit < 8; ++bit) {
    EXPECT_NEAR(table[1 << bit], corner, 1e-12);
    EXPECT_NEAR(table[255 ^ (1 << bit)], corner, 1e-12);  // a neighbourhood and its complement
  }
}

TEST(SurfaceDistances, OfTwoVoxelsAreTheirDistanceUnderEveryConvention) {
  Mask a({6, 7, 8}), b({6, 7, 8});
  a.at(1, 1, 1) = b.at(1, 5, 4) = 1;
  for (SurfaceConvention c : {SurfaceConvention::kSurfaceArea, SurfaceConvention::kBorderVoxels, SurfaceConvention::kVoxelSets}) {
    const SurfaceDistances d = surface_distances(a.view(), b.view(), {1, 0.5, 2}, c);
    // Corner to nearest corner is one voxel less along each axis for half of the corners, and so on.
    const double largest = std::hypot(4 * 0.5, 3 * 2.0);
    EXPECT_NEAR(hausdorff_mm(d), largest, 1e-12) << name_of(c);
    if (c != SurfaceConvention::kSurfaceArea) {  // one element each: their distance is the average too
      EXPECT_NEAR(average_distance_mm(d), largest, 1e-12) << name_of(c);
    }
  }
}

TEST(SurfaceDistances, AreZeroForEqualMasksEvenWhenTheyFillTheGrid) {
  Mask full({3, 4, 5});
  for (uint8_t& v : full.voxels) v = 1;
  for (const Mask& m : {full, Mask::random({5, 6, 7}, 0.4f, 3)})
    for (SurfaceConvention c : {SurfaceConvention::kSurfaceArea, SurfaceConvention::kBorderVoxels, SurfaceConvention::kVoxelSets}) {
      const SurfaceDistances d = surface_distances(m.view(), m.view(), {1, 2, 3}, c);
      EXPECT_FALSE(d.prediction_to_reference.distance_mm.empty());
      EXPECT_EQ(hausdorff_mm(d), 0);
      EXPECT_EQ(average_distance_mm(d), 0);
      if (c == SurfaceConvention::kVoxelSets) {
        EXPECT_TRUE(std::isnan(surface_dice(d, 0)));
      } else {
        EXPECT_EQ(surface_dice(d, 0), 1);
      }
    }
}

TEST(SurfaceDistances, SwapWhenPredictionAndReferenceSwap) {
  const Mask a = Mask::random({7, 8, 9}, 0.1f, 5), b = Mask::random({7, 8, 9}, 0.3f, 6);
  for (SurfaceConvention c : {SurfaceConvention::kSurfaceArea, SurfaceConvention::kBorderVoxels}) {
    const auto ab = surface_distances(a.view(), b.view(), {1, 2, 3}, c), ba = surface_distances(b.view(), a.view(), {1, 2, 3}, c);
    EXPECT_EQ(ab.prediction_to_reference.distance_mm, ba.reference_to_prediction.distance_mm);
    EXPECT_EQ(hausdorff_mm(ab, 95), hausdorff_mm(ba, 95));
    EXPECT_NEAR(surface_dice(ab, 1.0), surface_dice(ba, 1.0), 1e-14);
  }
}

TEST(SurfaceDistances, AreInfiniteWhenOneMaskIsEmptyAndUndefinedWhenBothAre) {
  Mask empty({4, 4, 4}), one({4, 4, 4});
  one.at(0, 3, 1) = 1;
  for (SurfaceConvention c : {SurfaceConvention::kSurfaceArea, SurfaceConvention::kBorderVoxels, SurfaceConvention::kVoxelSets}) {
    EXPECT_TRUE(std::isinf(hausdorff_mm(surface_distances(one.view(), empty.view(), {1, 1, 1}, c)))) << name_of(c);
    EXPECT_TRUE(std::isinf(hausdorff_mm(surface_distances(empty.view(), one.view(), {1, 1, 1}, c)))) << name_of(c);
    EXPECT_TRUE(std::isnan(hausdorff_mm(surface_distances(empty.view(), empty.view(), {1, 1, 1}, c)))) << name_of(c);
    EXPECT_TRUE(std::isnan(average_distance_mm(surface_distances(empty.view(), empty.view(), {1, 1, 1}, c)))) << name_of(c);
  }
}

TEST(SurfaceDistances, DoNotChangeWhenEmptySpaceIsAddedRoundTheMasks) {
  const Mask a = Mask::random({4, 5, 6}, 0.3f, 8), b = Mask::random({4, 5, 6}, 0.3f, 9);
  Mask wide_a({9, 11, 8}), wide_b({9, 11, 8});
  for (int64_t z = 0; z < 4; ++z)
    for (int64_t y = 0; y < 5; ++y)
      for (int64_t x = 0; x < 6; ++x) wide_a.at(z + 3, y + 2, x + 1) = a.view()(z, y, x), wide_b.at(z + 3, y + 2, x + 1) = b.view()(z, y, x);
  for (SurfaceConvention c : {SurfaceConvention::kSurfaceArea, SurfaceConvention::kBorderVoxels, SurfaceConvention::kVoxelSets}) {
    const auto small = surface_distances(a.view(), b.view(), {1, 2, 3}, c), large = surface_distances(wide_a.view(), wide_b.view(), {1, 2, 3}, c);
    EXPECT_EQ(small.prediction_to_reference.distance_mm, large.prediction_to_reference.distance_mm) << name_of(c);
    EXPECT_EQ(small.reference_to_prediction.weight, large.reference_to_prediction.weight) << name_of(c);
  }
}

TEST(SurfaceDistances, RefuseUnequalGridsAndBadSpacings) {
  const Mask a({2, 3, 4}), b({2, 3, 5});
  try {
    surface_distances(a.view(), b.view(), {1, 1, 1});
    FAIL();
  } catch (const ArgumentError& e) {
    EXPECT_NE(std::string(e.what()).find("prediction is 2x3x4 voxels (z, y, x), reference 2x3x5"), std::string::npos) << e.what();
  }
  EXPECT_THROW(surface_distances(a.view(), a.view(), {1, 0, 1}), ArgumentError);
  EXPECT_THROW(surface_distances(a.view(), a.view(), {1, 1, std::nan("")}), ArgumentError);
}

TEST(SurfaceConvention, IsFoundByNameAndASlipIsAnsweredWithTheNearest) {
  EXPECT_EQ(surface_convention("monai"), SurfaceConvention::kBorderVoxels);
  try {
    surface_convention("simpelitk");
    FAIL();
  } catch (const ArgumentError& e) {
    EXPECT_NE(std::string(e.what()).find("did you mean simpleitk?"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace fovea::train
