#include "fovea/data/slide_tiles.h"

#include <algorithm>
#include <cmath>

#include "fovea/core/error.h"

namespace fovea::data {

namespace {
// Sums of a mask over any rectangle, fractions of pixels included.
class MaskIntegral {
 public:
  explicit MaskIntegral(const TissueMask& mask) : height_(mask.height), width_(mask.width), sums_(size_t((mask.height + 1) * (mask.width + 1))) {
    for (int64_t y = 0; y < height_; ++y)
      for (int64_t x = 0; x < width_; ++x) at(y + 1, x + 1) = at(y, x + 1) + at(y + 1, x) - at(y, x) + mask.inside[size_t(y * width_ + x)];
  }
  double over(double y0, double x0, double y1, double x1) const { return until(y1, x1) - until(y0, x1) - until(y1, x0) + until(y0, x0); }

 private:
  double& at(int64_t y, int64_t x) { return sums_[size_t(y * (width_ + 1) + x)]; }
  double at(int64_t y, int64_t x) const { return sums_[size_t(y * (width_ + 1) + x)]; }
  double until(double y, double x) const {
    y = std::clamp(y, 0.0, double(height_)), x = std::clamp(x, 0.0, double(width_));
    const int64_t iy = std::min(int64_t(y), height_ - 1), ix = std::min(int64_t(x), width_ - 1);
    const double fy = y - double(iy), fx = x - double(ix);
    return (1 - fy) * ((1 - fx) * at(iy, ix) + fx * at(iy, ix + 1)) + fy * ((1 - fx) * at(iy + 1, ix) + fx * at(iy + 1, ix + 1));
  }

  int64_t height_, width_;
  std::vector<double> sums_;
};
}  // namespace

void TileConfig::validate() const {
  const auto fail = [](const std::string& what) { throw ArgumentError("tiles: " + what); };
  if (tile_px < 16 || tile_px > 4096) fail("tile_px = " + std::to_string(tile_px) + ", expected 16 to 4096");
  if (!(um_per_pixel > 0)) fail("um_per_pixel = " + std::to_string(um_per_pixel) + ", expected above 0");
  if (overlap_px < 0 || overlap_px >= tile_px) fail("overlap_px = " + std::to_string(overlap_px) + ", expected 0 to below tile_px = " + std::to_string(tile_px));
  if (!(min_tissue >= 0 && min_tissue <= 1)) fail("min_tissue = " + std::to_string(min_tissue) + ", expected 0 to 1");
}

TileGrid tile_slide(const io::Slide& slide, const TissueMask& tissue, const TileConfig& config) {
  config.validate();
  const double zoom = config.um_per_pixel / slide.um_per_pixel();
  if (zoom < 0.8)
    throw IoError(slide.path(), "has " + std::to_string(slide.um_per_pixel()) + " um per pixel, too coarse for tiles of " + std::to_string(config.um_per_pixel) +
                                    "; give --tile-um " + std::to_string(slide.um_per_pixel()) + ", or --um-per-pixel if the file is wrong");
  TileGrid grid;
  grid.config = config;
  grid.height = slide.info().levels[0].height, grid.width = slide.info().levels[0].width;
  grid.edge_level0 = std::lround(double(config.tile_px) * zoom);
  grid.stride_level0 = std::max<int64_t>(1, std::lround(double(config.tile_px - config.overlap_px) * zoom));
  const MaskIntegral integral(tissue);
  const double scale = 1 / tissue.pixel_level0, area = double(grid.edge_level0) * double(grid.edge_level0) * scale * scale;
  for (int64_t y = 0; y < grid.height; y += grid.stride_level0)
    for (int64_t x = 0; x < grid.width; x += grid.stride_level0) {
      const double share = integral.over(double(y) * scale, double(x) * scale, double(y + grid.edge_level0) * scale, double(x + grid.edge_level0) * scale) / area;
      if (share <= 0 || share < config.min_tissue) continue;
      grid.corners.push_back({x, y});
      grid.tissue.push_back(std::min(share, 1.0));
    }
  if (grid.corners.empty())
    throw IoError(slide.path(), tissue.pixels() == 0 ? "holds no tissue (saturation threshold " + std::to_string(tissue.threshold) + "); look at it, or lower --min-region-mm2"
                                                     : "has no tile that tissue covers to " + std::to_string(config.min_tissue) + "; lower --min-tissue");
  return grid;
}

void read_tiles(io::Slide& slide, const TileGrid& grid, const std::function<void(size_t, const io::SlideRegion&)>& visit) {
  const size_t level = slide.info().level_for(double(grid.edge_level0) / double(grid.config.tile_px));
  const int64_t edge = std::max<int64_t>(1, std::lround(double(grid.edge_level0) / slide.info().levels[level].downsample));
  for (size_t i = 0; i < grid.corners.size(); ++i)
    visit(i, io::resized(slide.read(level, grid.corners[i][1], grid.corners[i][0], edge, edge), grid.config.tile_px, grid.config.tile_px));
}

}  // namespace fovea::data
