#include "fovea/data/ibsi_phantom.h"

#include <cmath>

namespace fovea::data {

IbsiPhantom ibsi_phantom() {
  constexpr float o = -1;
  constexpr float kLevels[] = {1, 4, 4, 1, 1, 1, 4, 6, 1, 1, 4, 1, 6, 4, 1, 4, 4, 6, 4, 1,   // z = 0
                               1, 4, 4, 1, 1, 1, 1, 6, 1, 1, o, 1, 3, 1, 1, 4, 4, 6, 1, 1,   // z = 1
                               1, 4, 4, o, o, 1, 1, 1, 1, 1, 1, 1, o, 1, 1, 1, 1, 6, 1, 1,   // z = 2
                               1, 4, 4, o, o, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 6, 1, 1};  // z = 3
  Geometry geometry;
  geometry.shape = {4, 4, 5};
  geometry.affine = {{{2, 0, 0, 0}, {0, 2, 0, 0}, {0, 0, 2, 0}}};
  IbsiPhantom phantom{Volume::zeros(geometry, DType::kF32), Volume::zeros(geometry, DType::kU8)};
  for (size_t i = 0; i < std::size(kLevels); ++i)
    phantom.image.as<float>()[i] = kLevels[i], phantom.mask.as<uint8_t>()[i] = kLevels[i] > 0;
  return phantom;
}

const std::vector<std::pair<std::string, double>>& ibsi_reference() {
  // Kurtosis: the manual's -0.355 is the excess over 3.
  static const std::vector<std::pair<std::string, double>> values = {{"firstorder_Mean", 2.15},
                                                                     {"firstorder_Variance", 3.05},
                                                                     {"firstorder_Skewness", 1.08},
                                                                     {"firstorder_Kurtosis", 2.645},
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
  return values;
}

bool agrees_with_printed(double value, double printed) {
  const double digit = std::pow(10, std::floor(std::log10(std::abs(printed))) - 2);
  return std::abs(value - printed) <= 0.5001 * digit;
}

}  // namespace fovea::data
