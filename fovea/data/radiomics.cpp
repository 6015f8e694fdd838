#include "fovea/data/radiomics.h"

#include "fovea/core/error.h"
#include "fovea/data/radiomics_region.h"

namespace fovea::data {

const std::vector<RadiomicsFamily>& radiomics_families() {
  static const std::vector<RadiomicsFamily> families = {
      {"firstorder",
       {"10Percentile", "90Percentile", "Energy", "Entropy", "InterquartileRange", "Kurtosis", "Maximum",
        "MeanAbsoluteDeviation", "Mean", "Median", "Minimum", "Range", "RobustMeanAbsoluteDeviation", "RootMeanSquared",
        "Skewness", "TotalEnergy", "Uniformity", "Variance"}},
      {"shape",
       {"Elongation", "Flatness", "LeastAxisLength", "MajorAxisLength", "Maximum2DDiameterColumn",
        "Maximum2DDiameterRow", "Maximum2DDiameterSlice", "Maximum3DDiameter", "MeshVolume", "MinorAxisLength",
        "Sphericity", "SurfaceArea", "SurfaceVolumeRatio", "VoxelVolume"}},
      {"glcm",
       {"Autocorrelation",
        "ClusterProminence",
        "ClusterShade",
        "ClusterTendency",
        "Contrast",
        "Correlation",
        "DifferenceAverage",
        "DifferenceEntropy",
        "DifferenceVariance",
        "Id",
        "Idm",
        "Idmn",
        "Idn",
        "Imc1",
        "Imc2",
        "InverseVariance",
        "JointAverage",
        "JointEnergy",
        "JointEntropy",
        "MCC",
        "MaximumProbability",
        "SumAverage",
        "SumEntropy",
        "SumSquares"}},
      {"glrlm",
       {"GrayLevelNonUniformity", "GrayLevelNonUniformityNormalized", "GrayLevelVariance", "HighGrayLevelRunEmphasis",
        "LongRunEmphasis", "LongRunHighGrayLevelEmphasis", "LongRunLowGrayLevelEmphasis", "LowGrayLevelRunEmphasis",
        "RunEntropy", "RunLengthNonUniformity", "RunLengthNonUniformityNormalized", "RunPercentage", "RunVariance",
        "ShortRunEmphasis", "ShortRunHighGrayLevelEmphasis", "ShortRunLowGrayLevelEmphasis"}},
      {"glszm",
       {"GrayLevelNonUniformity", "GrayLevelNonUniformityNormalized", "GrayLevelVariance", "HighGrayLevelZoneEmphasis",
        "LargeAreaEmphasis", "LargeAreaHighGrayLevelEmphasis", "LargeAreaLowGrayLevelEmphasis",
        "LowGrayLevelZoneEmphasis", "SizeZoneNonUniformity", "SizeZoneNonUniformityNormalized", "SmallAreaEmphasis",
        "SmallAreaHighGrayLevelEmphasis", "SmallAreaLowGrayLevelEmphasis", "ZoneEntropy", "ZonePercentage",
        "ZoneVariance"}},
      {"gldm",
       {"DependenceEntropy", "DependenceNonUniformity", "DependenceNonUniformityNormalized", "DependenceVariance",
        "GrayLevelNonUniformity", "GrayLevelVariance", "HighGrayLevelEmphasis", "LargeDependenceEmphasis",
        "LargeDependenceHighGrayLevelEmphasis", "LargeDependenceLowGrayLevelEmphasis", "LowGrayLevelEmphasis",
        "SmallDependenceEmphasis", "SmallDependenceHighGrayLevelEmphasis", "SmallDependenceLowGrayLevelEmphasis"}},
      {"ngtdm", {"Busyness", "Coarseness", "Complexity", "Contrast", "Strength"}},
  };
  return families;
}

const std::vector<std::string>& radiomics_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const RadiomicsFamily& family : radiomics_families())
      for (const std::string& feature : family.features) all.push_back("original_" + family.name + "_" + feature);
    return all;
  }();
  return names;
}

std::vector<RadiomicsFeature> radiomics(const Volume& image, const Volume& mask, const RadiomicsOptions& options) {
  const Regions regions = cut_regions(image, mask, options);
  const LevelGrid grid = level_grid(regions.texture, options);
  const std::vector<double> values[] = {first_order_features(regions.texture, options),
                                        shape_features(regions.shape),
                                        glcm_features(grid, options),
                                        glrlm_features(grid, options),
                                        glszm_features(grid, options),
                                        gldm_features(grid, options),
                                        ngtdm_features(grid, options)};
  std::vector<RadiomicsFeature> features;
  features.reserve(radiomics_names().size());
  for (const auto& family : values)
    for (const double value : family) features.push_back({radiomics_names()[features.size()], value});
  FOVEA_CHECK(features.size() == radiomics_names().size(), "radiomics: features without names");
  return features;
}

}  // namespace fovea::data
