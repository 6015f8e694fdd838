#include "fovea/recipes/slide_picture.h"

#include <algorithm>
#include <cmath>

#include "fovea/report/canvas.h"
#include "fovea/report/colour.h"

namespace fovea::recipes {

report::Image picture_of(const io::SlideRegion& region) { return {region.height, region.width, 3, region.rgb}; }

void paint_values(report::Image& picture, double pixel_level0, const TileValues& tiles, double share) {
  std::vector<float> sum(size_t(picture.height * picture.width)), count(sum.size());
  const auto pixel = [&](int64_t level0) { return int64_t(std::lround(double(level0) / pixel_level0)); };
  for (size_t i = 0; i < tiles.corners.size(); ++i) {
    const auto [x, y] = tiles.corners[i];
    const int64_t x1 = std::min(picture.width, std::max(pixel(x + tiles.edge), pixel(x) + 1)), y1 = std::min(picture.height, std::max(pixel(y + tiles.edge), pixel(y) + 1));
    for (int64_t py = std::max<int64_t>(0, pixel(y)); py < y1; ++py)
      for (int64_t px = std::max<int64_t>(0, pixel(x)); px < x1; ++px) {
        sum[size_t(py * picture.width + px)] += float(tiles.values[i]);
        count[size_t(py * picture.width + px)] += 1;
      }
  }
  report::Canvas canvas(picture);
  for (int64_t y = 0; y < picture.height; ++y)
    for (int64_t x = 0; x < picture.width; ++x)
      if (const size_t at = size_t(y * picture.width + x); count[at] > 0) canvas.blend(y, x, report::heat_colour(double(sum[at] / count[at])), share);
}

void outline_tiles(report::Image& picture, double pixel_level0, const data::TissueMask& tissue, const data::TileGrid& grid) {
  report::Canvas canvas(picture);
  const auto inside = [&](int64_t y, int64_t x) {
    const int64_t my = int64_t(double(y) * pixel_level0 / tissue.pixel_level0), mx = int64_t(double(x) * pixel_level0 / tissue.pixel_level0);
    return my < tissue.height && mx < tissue.width && tissue.inside[size_t(my * tissue.width + mx)];
  };
  const auto pixel = [&](int64_t level0) { return int64_t(std::lround(double(level0) / pixel_level0)); };
  for (const auto& [x, y] : grid.corners)
    canvas.rectangle(pixel(y), pixel(x), pixel(y + grid.edge_level0) - pixel(y), pixel(x + grid.edge_level0) - pixel(x), {120, 120, 120});
  for (int64_t y = 0; y + 1 < picture.height; ++y)
    for (int64_t x = 0; x + 1 < picture.width; ++x)
      if (inside(y, x) != inside(y, x + 1) || inside(y, x) != inside(y + 1, x)) canvas.fill(y, x, 2, 2, {0, 114, 178});
}

}  // namespace fovea::recipes
