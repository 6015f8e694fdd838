#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "fovea/core/volume.h"

namespace fovea::data {

/// How the matrices of the 13 directions become one value. kMean: features of each, then their mean over the directions
/// that hold anything; the others: matrices weighted and added first (kSum: by 1; norms of the step in mm: for GLCM
/// exp(-|d|^2), for run lengths |d|).
enum class DirectionWeighting { kMean, kSum, kManhattan, kEuclidean, kInfinity };

/// Which voxels of the mask stay, by intensity. kAbsolute: within the range; kRelative: range times the largest value;
/// kSigma: mean plus range times deviation.
enum class Resegment { kOff, kAbsolute, kRelative, kSigma };

/// Settings of pyradiomics, under its defaults.
struct RadiomicsOptions {
  int64_t label = 1;                     // the mask's value
  double bin_width = 25;                 // bins start at multiples of it
  int64_t bin_count = 0;                 // > 0: that many bins from smallest to largest value instead
  std::vector<int64_t> distances = {1};  // of neighbours for GLCM, GLDM, NGTDM: the largest step along an axis
  DirectionWeighting weighting = DirectionWeighting::kMean;
  int64_t dependence = 0;                     // GLDM: how far the levels of dependent neighbours may be apart
  int plane_axis = -1;                        // 0, 1, 2: neighbours only within planes across Z, Y, X; -1: in 3-D
  double energy_shift = 0;                    // added to intensities in Energy, TotalEnergy and RootMeanSquared
  double normalise_scale = 0;                 // > 0: the whole image to mean 0 and this deviation first
  std::array<double, 3> spacing_mm{0, 0, 0};  // Z, Y, X: resampled to it (image by cubic B-splines, mask by nearest
                                              // voxel); 0: that axis stays
  Resegment resegment = Resegment::kOff;      // for all families but shape
  std::vector<double> resegment_range;        // {least} or {least, most}
  int64_t minimum_dimensions = 2;             // axes along which the mask must have more than one voxel
};

struct RadiomicsFeature {
  std::string name;  // "original_glcm_JointEntropy"
  double value = 0;
};

/// The families, each with its features in pyradiomics' alphabetical order.
struct RadiomicsFamily {
  std::string name;  // "glcm"
  std::vector<std::string> features;
};
/// First order 18, shape 14, GLCM 24, GLRLM 16, GLSZM 16, GLDM 14, NGTDM 5: 107.
const std::vector<RadiomicsFamily>& radiomics_families();
/// "original_firstorder_10Percentile" ... in the order of radiomics().
const std::vector<std::string>& radiomics_names();

/// The 107 default features of the voxels under a mask, as pyradiomics 3.1 defines and names them.
///   Texture  intensities in bins; matrices of 26 (in planes 8) neighbours; logarithms of base 2. No pair of neighbours
///            in the mask at all: GLCM and GLRLM features are NaN. A flat region is defined: MCC and Correlation 1,
///            Coarseness 10^6.
///   Shape    mm, of the mask's surface by marching cubes (MaskSurface) and of its voxels' covariance; the first
///            channel's image only gives the grid
///   Kurtosis is not the excess: 3 for normal intensities.
/// Image    of one channel, finite under the mask (everywhere with normalise_scale or spacing_mm)
/// Errors   ArgumentError in one line: no such label, one voxel, fewer dimensions than asked for, another grid than the
///          image's, NaN or infinite intensities, more than 4096 filled bins, options out of range
/// Cost     O(voxels of the mask's box) and, for each direction, O(filled bins ^2) GLCM sums and ^3 for MCC
/// Source   van Griethuysen et al. 2017, doi:10.1158/0008-5472.CAN-17-0339; Zwanenburg et al. 2020 (IBSI),
///          doi:10.1148/radiol.2020191145
std::vector<RadiomicsFeature> radiomics(const Volume& image, const Volume& mask, const RadiomicsOptions& options = {});

}  // namespace fovea::data
