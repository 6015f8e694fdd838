#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "fovea/data/slide_features.h"

namespace fovea::recipes {

struct SlideImportOptions {
  data::TissueConfig tissue;
  data::TileConfig tiles;
  std::optional<double> um_per_pixel;  // of slides that do not say it
};

struct ImportedSlide {
  std::string id;  // the file's name without its ending
  std::filesystem::path features, preview;
  int64_t tiles = 0;
  double tissue_share = 0;  // of the slide
  double seconds = 0;
};

/// Makes FOLDER/h5_files/ID.h5 (48 numbers of colour and texture a tile, and coordinates: the layout of CLAM) and
/// FOLDER/previews/ID.png (tissue and tiles over the slide) of one slide.
/// Errors   as data::describe_slide()
ImportedSlide import_slide(const std::filesystem::path& slide, const std::filesystem::path& folder, const SlideImportOptions& options);

/// The slides of a folder, by name. Errors: IoError when there is none.
std::vector<std::filesystem::path> slides_of(const std::filesystem::path& folder);

}  // namespace fovea::recipes
