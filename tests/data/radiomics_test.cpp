#include "fovea/data/radiomics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <map>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"
#include "fovea/data/radiomics_region.h"
#include "fovea/io/csv.h"
#include "fovea/io/image.h"

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

// The digital phantom of the Image Biomarker Standardisation Initiative: 5 x 4 x 4 voxels of 2 mm, 74 in the mask.
Scan ibsi_phantom() {
  constexpr float o = -1;
  return scan_of({4, 4, 5}, {1, 4, 4, 1, 1, 1, 4, 6, 1, 1, 4, 1, 6, 4, 1, 4, 4, 6, 4, 1,  //
                             1, 4, 4, 1, 1, 1, 1, 6, 1, 1, o, 1, 3, 1, 1, 4, 4, 6, 1, 1,  //
                             1, 4, 4, o, o, 1, 1, 1, 1, 1, 1, 1, o, 1, 1, 1, 1, 6, 1, 1,  //
                             1, 4, 4, o, o, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 6, 1, 1},
                 {2, 2, 2});
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
  EXPECT_EQ(values_of(ibsi_phantom()).size(), 107u);
}

// Reference values of the IBSI manual (arXiv:1612.07003v11, digital phantom; texture 3-D: averaged over directions
// where there are directions), as printed: three digits.
TEST(Radiomics, EqualsTheReferenceValuesOfTheIbsiDigitalPhantom) {
  RadiomicsOptions options;
  options.bin_width = 1;
  const Values v = values_of(ibsi_phantom(), options);
  const Values reference = {{"firstorder_Mean", 2.15},
                            {"firstorder_Variance", 3.05},
                            {"firstorder_Skewness", 1.08},
                            {"firstorder_Kurtosis", -0.355 + 3},
                            {"firstorder_Median", 1},
                            {"firstorder_Minimum", 1},
                            {"firstorder_10Percentile", 1},
                            {"firstorder_90Percentile", 4},
                            {"firstorder_Maximum", 6},
                            {"firstorder_InterquartileRange", 3},
                            {"firstorder_Range", 5},
                            {"firstorder_MeanAbsoluteDeviation", 1.55},
                            {"firstorder_RobustMeanAbsoluteDeviation", 1.11},
                            {"firstorder_Energy", 567},
                            {"firstorder_RootMeanSquared", 2.77},
                            {"firstorder_Entropy", 1.27},
                            {"firstorder_Uniformity", 0.512},
                            {"shape_MeshVolume", 556},
                            {"shape_VoxelVolume", 592},
                            {"shape_SurfaceArea", 388},
                            {"shape_SurfaceVolumeRatio", 0.698},
                            {"shape_Sphericity", 0.843},
                            {"shape_Maximum3DDiameter", 13.1},
                            {"shape_Elongation", 0.816},
                            {"shape_Flatness", 0.749},
                            {"glcm_MaximumProbability", 0.503},
                            {"glcm_JointAverage", 2.14},
                            {"glcm_SumSquares", 3.1},
                            {"glcm_JointEntropy", 2.4},
                            {"glcm_DifferenceAverage", 1.43},
                            {"glcm_DifferenceVariance", 3.06},
                            {"glcm_DifferenceEntropy", 1.56},
                            {"glcm_SumAverage", 4.29},
                            {"glcm_ClusterTendency", 7.07},
                            {"glcm_SumEntropy", 1.92},
                            {"glcm_JointEnergy", 0.303},
                            {"glcm_Contrast", 5.32},
                            {"glcm_Id", 0.677},
                            {"glcm_Idn", 0.851},
                            {"glcm_Idm", 0.618},
                            {"glcm_Idmn", 0.898},
                            {"glcm_InverseVariance", 0.0604},
                            {"glcm_Correlation", 0.157},
                            {"glcm_Autocorrelation", 5.06},
                            {"glcm_ClusterShade", 16.6},
                            {"glcm_ClusterProminence", 145},
                            {"glcm_Imc1", -0.157},
                            {"glcm_Imc2", 0.52},
                            {"glrlm_ShortRunEmphasis", 0.705},
                            {"glrlm_LongRunEmphasis", 3.06},
                            {"glrlm_LowGrayLevelRunEmphasis", 0.603},
                            {"glrlm_HighGrayLevelRunEmphasis", 9.7},
                            {"glrlm_GrayLevelNonUniformity", 21.8},
                            {"glrlm_RunLengthNonUniformity", 26.9},
                            {"glrlm_RunPercentage", 0.68},
                            {"glrlm_GrayLevelVariance", 3.46},
                            {"glrlm_RunVariance", 0.574},
                            {"glrlm_RunEntropy", 2.43},
                            {"glszm_SmallAreaEmphasis", 0.255},
                            {"glszm_LargeAreaEmphasis", 550},
                            {"glszm_LowGrayLevelZoneEmphasis", 0.253},
                            {"glszm_HighGrayLevelZoneEmphasis", 15.6},
                            {"glszm_SmallAreaLowGrayLevelEmphasis", 0.0256},
                            {"glszm_SmallAreaHighGrayLevelEmphasis", 2.76},
                            {"glszm_LargeAreaLowGrayLevelEmphasis", 503},
                            {"glszm_LargeAreaHighGrayLevelEmphasis", 1490},
                            {"glszm_GrayLevelNonUniformity", 1.4},
                            {"glszm_GrayLevelNonUniformityNormalized", 0.28},
                            {"glszm_SizeZoneNonUniformity", 1},
                            {"glszm_SizeZoneNonUniformityNormalized", 0.2},
                            {"glszm_ZonePercentage", 0.0676},
                            {"glszm_GrayLevelVariance", 2.64},
                            {"glszm_ZoneVariance", 331},
                            {"glszm_ZoneEntropy", 2.32},
                            {"gldm_SmallDependenceEmphasis", 0.045},
                            {"gldm_LargeDependenceEmphasis", 109},
                            {"gldm_LowGrayLevelEmphasis", 0.693},
                            {"gldm_HighGrayLevelEmphasis", 7.66},
                            {"gldm_GrayLevelNonUniformity", 37.9},
                            {"gldm_DependenceNonUniformity", 4.86},
                            {"gldm_DependenceNonUniformityNormalized", 0.0657},
                            {"gldm_GrayLevelVariance", 3.05},
                            {"gldm_DependenceVariance", 22.1},
                            {"gldm_DependenceEntropy", 4.4},
                            {"ngtdm_Coarseness", 0.0296},
                            {"ngtdm_Contrast", 0.584},
                            {"ngtdm_Busyness", 6.54},
                            {"ngtdm_Complexity", 13.5},
                            {"ngtdm_Strength", 0.763}};
  for (const auto& [name, expected] : reference) {
    const double digit = std::pow(10, std::floor(std::log10(std::abs(expected))) - 2);
    EXPECT_NEAR(v.at(name), expected, 0.5001 * digit) << name;
  }
  // IBSI divides the covariance of the voxels by N - 1, pyradiomics by N.
  const double unbiased = std::sqrt(74.0 / 73);
  EXPECT_NEAR(v.at("shape_MajorAxisLength") * unbiased, 11.4, 0.05);
  EXPECT_NEAR(v.at("shape_MinorAxisLength") * unbiased, 9.31, 0.005);
  EXPECT_NEAR(v.at("shape_LeastAxisLength") * unbiased, 8.54, 0.005);
}

std::filesystem::path tumours() {
  if (const char* folder = std::getenv("FOVEA_SHARED"))
    return std::filesystem::path(folder) / "data" / "pyradiomics-tumour";
  for (std::filesystem::path at = FOVEA_SOURCE_DIR; at != at.root_path(); at = at.parent_path())
    if (std::filesystem::is_directory(at / "shared" / "data" / "pyradiomics-tumour"))
      return at / "shared" / "data" / "pyradiomics-tumour";
  return {};
}

// What follows 'key': in the printed dictionary of settings, up to the end of the number, list or word.
std::string setting(const std::string& settings, const std::string& key) {
  const size_t at = settings.find("'" + key + "': ");
  if (at == std::string::npos) return "None";
  const size_t begin = at + key.size() + 4;
  return settings.substr(begin, settings.find(settings[begin] == '[' ? "]" : ",", begin) - begin);
}

RadiomicsOptions options_of(const std::string& settings) {
  RadiomicsOptions o;
  const auto number = [&](const std::string& key, double standard) {
    const std::string text = setting(settings, key);
    return text == "None" ? standard : std::stod(text);
  };
  o.bin_width = number("binWidth", 25);
  o.bin_count = int64_t(number("binCount", 0));
  o.energy_shift = number("voxelArrayShift", 0);
  o.minimum_dimensions = int64_t(number("minimumROIDimensions", 2));
  if (setting(settings, "force2D") == "True") o.plane_axis = int(number("force2Ddimension", 0));
  if (setting(settings, "normalize") == "True") o.normalise_scale = number("normalizeScale", 1);
  if (setting(settings, "weightingNorm") == "'no_weighting'") o.weighting = DirectionWeighting::kSum;
  if (setting(settings, "resampledPixelSpacing") == "[2, 2, 2") o.spacing_mm = {2, 2, 2};
  if (setting(settings, "resegmentRange") == "[-3, 3") o.resegment = Resegment::kSigma, o.resegment_range = {-3, 3};
  if (setting(settings, "resegmentRange") == "[0") o.resegment = Resegment::kAbsolute, o.resegment_range = {0};
  return o;
}

TEST(Radiomics, EqualsPyradiomicsOnEveryValueOfItsBaselines) {
  if (tumours().empty()) GTEST_SKIP() << "no ../shared: pyradiomics' cases and reference values are not at hand";
  std::map<std::string, Scan> scans;
  for (const std::string name : {"brain1", "brain2", "breast1"})
    scans[name] = {io::read_image(tumours() / (name + "_image.nrrd")),
                   io::read_image(tumours() / (name + "_label.nrrd"))};
  // The baseline of this one column comes from pyradiomics 2.0.1b1, whose triangles were others; 3.1.0 gives these.
  const Values newer = {{"shape_MeshVolume", 16147.51180013021},
                        {"shape_SurfaceArea", 6438.821603779402},
                        {"shape_Sphericity", 0.4798234536231475},
                        {"shape_SurfaceVolumeRatio", 0.3987500787}};
  int compared = 0;
  double worst = 0;
  for (const auto& family : radiomics_families()) {
    const auto table = io::read_csv(tumours() / "baseline" / ("baseline_" + family.name + ".csv"));
    std::map<std::string, size_t> row;
    for (size_t r = 0; r < table.rows(); ++r) row[table.cell(r, 0)] = r;
    for (size_t c = 1; c < table.columns().size(); ++c) {
      const std::string column = table.columns()[c], name = column.substr(0, column.find('_'));
      if (!scans.contains(name)) continue;  // pyradiomics' lung scans are not at hand
      const Values v = values_of(scans[name], options_of(table.cell(row.at("diagnostics_Configuration_Settings"), c)));
      for (const std::string& feature : family.features) {
        const std::string key = family.name + "_" + feature;
        double expected = std::stod(table.cell(row.at("original_" + key), c));
        if (column == "brain1" && newer.contains(key)) {
          EXPECT_NEAR(v.at(key), expected, 0.03 * expected) << key;  // pyradiomics' own tolerance
          expected = newer.at(key);
        }
        EXPECT_NEAR(v.at(key), expected, 1e-6 * std::max(std::abs(expected), 1e-6)) << column << " " << key;
        worst = std::max(worst, std::abs(v.at(key) - expected) / std::max(std::abs(expected), 1e-6));
        ++compared;
      }
    }
  }
  std::printf("%d values, largest relative difference %.1e\n", compared, worst);
  EXPECT_GT(compared, 1500);
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
