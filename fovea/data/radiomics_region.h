#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "fovea/data/radiomics.h"

namespace fovea::data {

/// The voxels that features are made of: the box of a mask with intensities.
struct Region {
  std::array<int64_t, 3> shape{};  // Z, Y, X, the smallest box
  std::array<double, 3> spacing_mm{};
  std::vector<uint8_t> inside;  // 1 in the mask
  std::vector<double> intensity;
  int64_t voxels = 0;  // in the mask
};

/// Regions of shape (the mask as given, resampled) and of everything else (also resegmented). Errors: see radiomics().
struct Regions {
  Region shape, texture;
};
Regions cut_regions(const Volume& image, const Volume& mask, const RadiomicsOptions& options);

/// Values in half-open bins: edges[b] <= value < edges[b + 1] is bin b. The last bin of counted ones takes the maximum.
/// Source   pyradiomics' imageoperations.getBinEdges
std::vector<double> bin_edges(double smallest, double largest, const RadiomicsOptions& options);

/// A region with its grey levels, inside a margin wide enough for every step.
struct LevelGrid {
  std::array<int64_t, 3> shape{}, stride{};
  std::array<double, 3> spacing_mm{};
  std::vector<int32_t> index;   // 1 + place in `levels`, 0 outside of the mask
  std::vector<int64_t> voxels;  // places in `index` of the mask's voxels, ascending
  std::vector<double> levels;   // the filled levels 1, 2, ..., ascending
  int64_t largest_level() const { return int64_t(levels.back()); }
};
LevelGrid level_grid(const Region& region, const RadiomicsOptions& options);

using Step = std::array<int64_t, 3>;
/// One of each pair of opposite steps whose largest part is one of `distances`, within the planes of the options.
std::vector<Step> directions(const std::vector<int64_t>& distances, int plane_axis);

// The families: values in the order of radiomics_families().
std::vector<double> first_order_features(const Region& region, const RadiomicsOptions& options);
std::vector<double> shape_features(const Region& region);
std::vector<double> glcm_features(const LevelGrid& grid, const RadiomicsOptions& options);
std::vector<double> glrlm_features(const LevelGrid& grid, const RadiomicsOptions& options);
std::vector<double> glszm_features(const LevelGrid& grid, const RadiomicsOptions& options);
std::vector<double> gldm_features(const LevelGrid& grid, const RadiomicsOptions& options);
std::vector<double> ngtdm_features(const LevelGrid& grid, const RadiomicsOptions& options);

}  // namespace fovea::data
