#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include <torch/types.h>

#include "fovea/data/slide_tiles.h"

namespace fovea::data {

/// The tiles of one slide as an encoder saw them.
struct SlideFeatures {
  torch::Tensor features;             // [N,D] f32, N and D at least 1
  torch::Tensor coords;               // [N,2] i64: x, y in level-0 pixels; undefined where the file has none
  std::optional<int64_t> edge_level0;  // of a tile; from the file, or else the smallest step between coordinates
  std::optional<int64_t> tile_px;      // of a tile as the encoder saw it, where the file says so
  std::optional<double> um_per_pixel;  // likewise
  std::string encoder;                 // as the file names it
};

/// Reads a .h5, .pt or .safetensors file of features (see io/feature_file.h) and checks it.
/// Errors   IoError: no features, no tile, as many coordinates as features is not so, a value that is not finite
SlideFeatures read_slide_features(const std::filesystem::path& path);

/// The feature file of a slide in a folder of CLAM (h5_files, pt_files) or TRIDENT (features_* of a job, or that folder
/// itself), or in a flat one. A file with coordinates (.h5) is taken before one without.
/// Errors   IoError naming the places that were looked at
std::filesystem::path find_slide_features(const std::filesystem::path& folder, const std::string& slide_id);

/// Cuts a slide and describes its tiles by tile_statistics().
/// Errors   as find_tissue(), tile_slide() and read_tiles()
struct DescribedSlide {
  TissueMask tissue;
  TileGrid grid;
  SlideFeatures features;
};
DescribedSlide describe_slide(io::Slide& slide, const TissueConfig& tissue, const TileConfig& tiles, const std::function<void(int64_t done, int64_t total)>& progress = {});

/// Writes features and coordinates as .h5 with TRIDENT's attributes (patch_size_level0 and so on).
void write_slide_features(const std::filesystem::path& path, const DescribedSlide& slide);

}  // namespace fovea::data
