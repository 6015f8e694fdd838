#pragma once
#include <vector>

#include "fovea/data/slide_tiles.h"
#include "fovea/report/image.h"

namespace fovea::recipes {

/// A region of a slide as a picture.
report::Image picture_of(const io::SlideRegion& region);

/// Squares on a slide, with a value each: where neighbours overlap, the mean is drawn.
struct TileValues {
  std::vector<std::array<int64_t, 2>> corners;  // x, y, level-0 pixels
  int64_t edge = 0;                             // likewise
  std::vector<double> values;                   // in [0, 1]
};

/// Lays the values' colours over a picture whose pixels are `pixel_level0` level-0 pixels wide; `share` of them shows.
void paint_values(report::Image& picture, double pixel_level0, const TileValues& tiles, double share);

/// The rim of the tissue in one colour and of each tile in another.
void outline_tiles(report::Image& picture, double pixel_level0, const data::TissueMask& tissue, const data::TileGrid& grid);

}  // namespace fovea::recipes
