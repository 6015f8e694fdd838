#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "fovea/data/tissue_mask.h"
#include "fovea/io/slide.h"

namespace fovea::data {

/// How a slide is cut. Sizes are physical: a 20x and a 40x scan of one piece of tissue give the same tiles.
struct TileConfig {
  int64_t tile_px = 256;
  double um_per_pixel = 0.5;
  int64_t overlap_px = 0;
  double min_tissue = 0.25;

  template <class V>
  void visit(V& v) {
    v("tile_px", tile_px, "edge of a tile in its own pixels");
    v("um_per_pixel", um_per_pixel, "of a tile: 0.5 is about 20x");
    v("overlap_px", overlap_px, "of neighbouring tiles, in their own pixels");
    v("min_tissue", min_tissue, "share of a tile that the tissue mask covers, at least");
  }
  /// Errors  ArgumentError naming the field.
  void validate() const;
};

/// The tiles of a slide that hold tissue, row by row.
struct TileGrid {
  TileConfig config;
  int64_t edge_level0 = 0;    // of a tile, in level-0 pixels
  int64_t stride_level0 = 0;  // from one to the next
  int64_t height = 0, width = 0;                // of level 0
  std::vector<std::array<int64_t, 2>> corners;  // x, y of the upper left one, level-0 pixels: CLAM's and TRIDENT's `coords`
  std::vector<double> tissue;                   // share of each tile
};

/// Tiles may reach over the lower and right edge of the slide; what is outside counts as no tissue.
/// Errors   IoError: pixels coarser than asked for by more than a quarter (says which flags to give), no tile with tissue
TileGrid tile_slide(const io::Slide& slide, const TissueMask& tissue, const TileConfig& config);

/// Calls `visit(i, tile)` for every tile in order, resampled to tile_px x tile_px pixels.
void read_tiles(io::Slide& slide, const TileGrid& grid, const std::function<void(size_t i, const io::SlideRegion& tile)>& visit);

}  // namespace fovea::data
