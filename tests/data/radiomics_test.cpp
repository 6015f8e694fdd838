#include "fovea/data/radiomics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"
#include "fovea/data/ibsi_phantom.h"

namespace fovea::data {
namespace {

using testing::HasSubstr;
using Values = std::map<std::string, double>;

Geometry grid_of(const std::array<int64_t, 3>& shape, const std::array<double, 3>& spacing_mm) {
  Geometry g;
  g.shape = shape;
  g.affine = {{{spacing_mm[2], 0, 0, 0}, {0, spacing_mm[1], 0, 0}, {0, 0, spacing_mm[0], 0}}};
  return g;
}

// An image and a mask; negative voxels of `image` are outside of the mask.
struct Scan {
  Volume image, mask;
};
Scan scan_of(const std::array<int64_t, 3>& shape, const std::vector<float>& voxels,
             const std::array<double, 3>& spacing_mm = {1, 1, 1}) {
  const Geometry g = grid_of(shape, spacing_mm);
  Scan scan{Volume::zeros(g, DType::kF32), Volume::zeros(g, DType::kU8)};
  for (size_t i = 0; i < voxels.size(); ++i)
    scan.image.as<float>()[i] = voxels[i], scan.mask.as<uint8_t>()[i] = voxels[i] >= 0;
  return scan;
}

Values values_of(const Scan& scan, const RadiomicsOptions& options = {}) {
  Values values;
  for (const auto& [name, value] : radiomics(scan.image, scan.mask, options)) {
    EXPECT_TRUE(values.emplace(name.substr(9), value).second) << name;  // without "original_"
  }
  return values;
}

Scan phantom_scan() {
  IbsiPhantom phantom = ibsi_phantom();
  return {phantom.image, phantom.mask};
}

std::string error_of(const Scan& scan, const RadiomicsOptions& options = {}) {
  try {
    radiomics(scan.image, scan.mask, options);
  } catch (const ArgumentError& e) {
    return e.what();
  }
  return "no error";
}

// A ball of random levels.
Scan random_ball(uint64_t seed, const std::array<double, 3>& spacing_mm = {1, 1, 1}) {
  const std::array<int64_t, 3> shape = {9, 11, 13};
  std::vector<float> voxels;
  Rng rng(seed, 0, 0);
  for (int64_t z = 0; z < shape[0]; ++z)
    for (int64_t y = 0; y < shape[1]; ++y)
      for (int64_t x = 0; x < shape[2]; ++x) {
        const double r2 = std::pow(z - 4.0, 2) + std::pow(y - 5.0, 2) + std::pow(x - 6.0, 2);
        const auto value = float(10 + 25 * rng.below(6));
        voxels.push_back(r2 <= 16 && rng.uniform() < 0.9f ? value : -1);
      }
  return scan_of(shape, voxels, spacing_mm);
}

TEST(Radiomics, HasThe107FeaturesInSevenFamilies) {
  EXPECT_EQ(radiomics_names().size(), 107u);
  std::map<std::string, size_t> sizes;
  for (const auto& family : radiomics_families()) sizes[family.name] = family.features.size();
  EXPECT_EQ(
      sizes,
      (std::map<std::string, size_t>{
          {"firstorder", 18}, {"shape", 14}, {"glcm", 24}, {"glrlm", 16}, {"glszm", 16}, {"gldm", 14}, {"ngtdm", 5}}));
  EXPECT_EQ(values_of(phantom_scan()).size(), 107u);
}

TEST(Radiomics, EqualsTheReferenceValuesOfTheIbsiDigitalPhantom) {
  RadiomicsOptions options;
  options.bin_width = 1;
  const Values v = values_of(phantom_scan(), options);
  for (const auto& [name, printed] : ibsi_reference())
    EXPECT_TRUE(agrees_with_printed(v.at(name), printed)) << name << " " << v.at(name) << ", printed " << printed;
  // IBSI divides the covariance of the voxels by N - 1, pyradiomics by N.
  const double unbiased = std::sqrt(74.0 / 73);
  EXPECT_NEAR(v.at("shape_MajorAxisLength") * unbiased, 11.4, 0.05);
  EXPECT_NEAR(v.at("shape_MinorAxisLength") * unbiased, 9.31, 0.005);
  EXPECT_NEAR(v.at("shape_LeastAxisLength") * unbiased, 8.54, 0.005);
}

// The co-occurrence matrix over again from its definition: all pairs of voxels, both ways round.
TEST(Radiomics, CooccurrenceEqualsCountingAllPairsOfVoxels) {
  const Scan scan = random_ball(3);
  const auto [Z, Y, X] = scan.image.geometry.shape;
  const auto level = [&](int64_t z, int64_t y, int64_t x) -> int {
    if (z < 0 || y < 0 || x < 0 || z >= Z || y >= Y || x >= X) return 0;
    const float v = scan.image.as<float>()[(z * Y + y) * X + x];
    return v < 0 ? 0 : int(v / 25) + 1;
  };
  double contrast = 0, energy = 0, average = 0;
  for (int d = 0; d < 13; ++d) {  // the 13 steps behind (0, 0, 0) in reading order
    const int64_t dz = (14 + d) / 9 - 1, dy = (14 + d) / 3 % 3 - 1, dx = (14 + d) % 3 - 1;
    std::map<std::pair<int, int>, double> p;
    double n = 0;
    for (int64_t z = 0; z < Z; ++z)
      for (int64_t y = 0; y < Y; ++y)
        for (int64_t x = 0; x < X; ++x)
          for (const int sign : {1, -1}) {
            const int i = level(z, y, x), j = level(z + sign * dz, y + sign * dy, x + sign * dx);
            if (i && j) p[{i, j}] += 1, ++n;
          }
    for (const auto& [ij, count] : p) {
      const double share = count / n;
      contrast += share * (ij.first - ij.second) * (ij.first - ij.second) / 13;
      energy += share * share / 13, average += share * ij.first / 13;
    }
  }
  const Values v = values_of(scan);
  EXPECT_NEAR(v.at("glcm_Contrast"), contrast, 1e-12 * contrast);
  EXPECT_NEAR(v.at("glcm_JointEnergy"), energy, 1e-12 * energy);
  EXPECT_NEAR(v.at("glcm_JointAverage"), average, 1e-12 * average);
}

TEST(Radiomics, DoNotDependOnTheOrderOfAxesNorOnWhereTheMaskLies) {
  const std::array<double, 3> mm = {2, 1.5, 0.7};
  const Scan scan = random_ball(4, mm);
  const auto [Z, Y, X] = scan.image.geometry.shape;
  // x, y, z become z, x, y, reversed along the first and two voxels further along the last.
  const std::array<int64_t, 3> shape = {X, Z, Y + 2};
  std::vector<float> turned(size_t(X * Z * (Y + 2)), -1);
  for (int64_t z = 0; z < Z; ++z)
    for (int64_t y = 0; y < Y; ++y)
      for (int64_t x = 0; x < X; ++x)
        turned[size_t(((X - 1 - x) * Z + z) * (Y + 2) + y + 2)] = scan.image.as<float>()[(z * Y + y) * X + x];
  const Values a = values_of(scan), b = values_of(scan_of(shape, turned, {mm[2], mm[0], mm[1]}));
  for (const auto& [name, value] : a) {
    if (name.find("2DDiameter") != std::string::npos) continue;  // named by axis
    // Marching cubes of crosswise voxels depends on orientation (MaskSurface); this mask has few.
    const double tolerance =
        name == "shape_MeshVolume" || name.find("Surface") != std::string::npos || name == "shape_Sphericity" ? 0.05
                                                                                                              : 1e-9;
    EXPECT_NEAR(b.at(name), value, tolerance * std::abs(value)) << name;
  }
  EXPECT_NEAR(a.at("shape_Maximum2DDiameterSlice"), b.at("shape_Maximum2DDiameterColumn"), 1e-9);
}

TEST(Radiomics, ShapeScalesWithTheSpacingAndTextureDoesNot) {
  const Values a = values_of(random_ball(5, {1, 1, 1})), b = values_of(random_ball(5, {3, 3, 3}));
  EXPECT_NEAR(b.at("shape_MeshVolume"), 27 * a.at("shape_MeshVolume"), 1e-9 * b.at("shape_MeshVolume"));
  EXPECT_NEAR(b.at("shape_SurfaceArea"), 9 * a.at("shape_SurfaceArea"), 1e-9 * b.at("shape_SurfaceArea"));
  EXPECT_NEAR(b.at("shape_Maximum3DDiameter"), 3 * a.at("shape_Maximum3DDiameter"), 1e-9);
  EXPECT_NEAR(b.at("shape_Sphericity"), a.at("shape_Sphericity"), 1e-12);
  for (const auto& [name, value] : a) {
    if (name.find("shape") == 0 || name == "firstorder_TotalEnergy") continue;
    EXPECT_EQ(b.at(name), value) << name;
  }
}

TEST(Radiomics, AFlatRegionHasDefinedFeatures) {
  std::vector<float> voxels(5 * 5 * 5, -1);
  for (int z = 1; z < 4; ++z)
    for (int y = 1; y < 4; ++y)
      for (int x = 1; x < 4; ++x) voxels[(z * 5 + y) * 5 + x] = 7;
  const Values v = values_of(scan_of({5, 5, 5}, voxels));
  for (const auto& [name, value] : v) EXPECT_TRUE(std::isfinite(value)) << name;
  EXPECT_EQ(v.at("glcm_MCC"), 1);
  EXPECT_EQ(v.at("glcm_Correlation"), 1);
  EXPECT_EQ(v.at("glcm_Imc1"), 0);
  EXPECT_EQ(v.at("ngtdm_Coarseness"), 1e6);
  EXPECT_NEAR(v.at("glszm_LargeAreaEmphasis"), 27 * 27, 1e-9);
}

TEST(Radiomics, VoxelsWithoutNeighboursLeaveTheGlcmUndefinedAndTheRestDefined) {
  std::vector<float> voxels(7 * 7 * 7, -1);
  voxels[0] = 10, voxels[3 * 49 + 3 * 7 + 1] = 60, voxels[6 * 49 + 6 * 7 + 4] = 90;
  const Values v = values_of(scan_of({7, 7, 7}, voxels));
  EXPECT_TRUE(std::isnan(v.at("glcm_Contrast")));
  EXPECT_TRUE(std::isfinite(v.at("gldm_DependenceEntropy")));
  EXPECT_NEAR(v.at("glszm_ZonePercentage"), 1, 1e-12);
}

TEST(Radiomics, WrongMasksAndImagesAreRefusedInOneLine) {
  Scan scan = random_ball(6);
  Scan empty = scan;
  for (uint8_t& m : empty.mask.as<uint8_t>()) m = 0;
  EXPECT_THAT(error_of(empty), HasSubstr("the mask of label 1 is empty"));
  RadiomicsOptions other;
  other.label = 4;
  EXPECT_THAT(error_of(scan, other), HasSubstr("the mask of label 4 is empty"));
  Scan one = empty;
  one.mask.as<uint8_t>()[200] = 1;
  EXPECT_THAT(error_of(one), HasSubstr("has one voxel, expected at least two"));
  one.mask.as<uint8_t>()[201] = 1;
  EXPECT_THAT(error_of(one), HasSubstr("extends along 1 axis, expected at least 2"));
  Scan elsewhere = scan;
  elsewhere.mask.geometry.affine[0][3] = 5;
  EXPECT_THAT(error_of(elsewhere), HasSubstr("expected the image's grid"));
  Scan smaller{scan.image, Volume::zeros(grid_of({3, 3, 3}, {1, 1, 1}), DType::kU8)};
  EXPECT_THAT(error_of(smaller), HasSubstr("mask has 3x3x3 voxels"));

  Scan bad = scan;
  size_t first = 0;
  while (!bad.mask.as<uint8_t>()[first]) ++first;
  bad.image.as<float>()[0] = NAN;  // outside of the mask: nothing asks for it
  EXPECT_EQ(error_of(bad), "no error");
  bad.image.as<float>()[first] = NAN;
  EXPECT_THAT(error_of(bad), HasSubstr("1 NaN or infinite voxels under the mask"));
  RadiomicsOptions scaled;
  scaled.normalise_scale = 100;
  EXPECT_THAT(error_of(bad, scaled), HasSubstr("2 NaN or infinite voxels in the image"));
}

TEST(Radiomics, OptionsOutOfRangeAreRefusedInOneLine) {
  const Scan scan = random_ball(7);
  RadiomicsOptions o;
  o.bin_width = 0;
  EXPECT_THAT(error_of(scan, o), HasSubstr("bin_width 0"));
  o.bin_width = 1e-6;
  EXPECT_THAT(error_of(scan, o), HasSubstr("take a larger bin_width"));
  o = {};
  o.distances = {0};
  EXPECT_THAT(error_of(scan, o), HasSubstr("distance 0, expected 1 to 16"));
  o = {};
  o.plane_axis = 3;
  EXPECT_THAT(error_of(scan, o), HasSubstr("plane_axis 3"));
  o = {};
  o.resegment = Resegment::kAbsolute, o.resegment_range = {1e6};
  EXPECT_THAT(error_of(scan, o), HasSubstr("is empty within the resegmentation's range"));
  o.resegment_range = {};
  EXPECT_THAT(error_of(scan, o), HasSubstr("resegment_range has 0 numbers"));
}

}  // namespace
}  // namespace fovea::data
