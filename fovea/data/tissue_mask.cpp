#include "fovea/data/tissue_mask.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "fovea/core/error.h"

namespace fovea::data {

namespace {
// Saturation of HSV, 0 to 255.
std::vector<uint8_t> saturation(const io::SlideRegion& picture) {
  std::vector<uint8_t> out(size_t(picture.height * picture.width));
  for (size_t i = 0; i < out.size(); ++i) {
    const uint8_t* p = picture.rgb.data() + 3 * i;
    const int most = std::max({p[0], p[1], p[2]}), least = std::min({p[0], p[1], p[2]});
    out[i] = most == 0 ? 0 : uint8_t((255 * (most - least) + most / 2) / most);
  }
  return out;
}

// Median of edge x edge pixels, those at the rim repeated: a histogram that slides along each row (Huang 1979).
std::vector<uint8_t> median_filtered(const std::vector<uint8_t>& from, int64_t height, int64_t width, int64_t edge) {
  if (edge <= 1) return from;
  const int64_t r = edge / 2, half = edge * edge / 2;
  std::vector<uint8_t> out(from.size());
  const auto at = [&](int64_t y, int64_t x) { return from[size_t(std::clamp<int64_t>(y, 0, height - 1) * width + std::clamp<int64_t>(x, 0, width - 1))]; };
  for (int64_t y = 0; y < height; ++y) {
    std::array<int32_t, 256> count{};
    for (int64_t dy = -r; dy <= r; ++dy)
      for (int64_t dx = -r; dx <= r; ++dx) ++count[at(y + dy, dx)];
    int64_t median = 0, below = 0;  // of values < median
    for (int64_t x = 0; x < width; ++x) {
      if (x > 0)
        for (int64_t dy = -r; dy <= r; ++dy) {
          const uint8_t gone = at(y + dy, x - r - 1), come = at(y + dy, x + r);
          --count[gone], ++count[come];
          below += (come < median) - (gone < median);
        }
      while (below > half) below -= count[size_t(--median)];
      while (below + count[size_t(median)] <= half) below += count[size_t(median++)];
      out[size_t(y * width + x)] = uint8_t(median);
    }
  }
  return out;
}

// Largest value of edge pixels along one axis; smallest for erosion by swapping 0 and 1.
std::vector<uint8_t> spread(const std::vector<uint8_t>& from, int64_t height, int64_t width, int64_t edge, bool along_x) {
  std::vector<uint8_t> out(from.size());
  const int64_t r = edge / 2, n = along_x ? width : height, lines = along_x ? height : width, step = along_x ? 1 : width, line_step = along_x ? width : 1;
  for (int64_t line = 0; line < lines; ++line) {
    int64_t nearest = -edge;  // the last 1 at or before i + r
    for (int64_t i = -r; i < n; ++i) {
      if (i + r < n && from[size_t(line * line_step + (i + r) * step)]) nearest = i + r;
      if (i >= 0) out[size_t(line * line_step + i * step)] = nearest >= i - r;
    }
  }
  return out;
}

std::vector<uint8_t> closed(std::vector<uint8_t> mask, int64_t height, int64_t width, int64_t edge) {
  if (edge <= 1) return mask;
  for (const bool erode : {false, true}) {
    if (erode)
      for (auto& v : mask) v = !v;
    mask = spread(spread(mask, height, width, edge, true), height, width, edge, false);
    if (erode)
      for (auto& v : mask) v = !v;
  }
  return mask;
}

// Turns every connected region of `value` with fewer than `least` pixels into the other value. Holes are connected by
// edges, tissue by corners too, as in CLAM's contours.
void drop_small(std::vector<uint8_t>& mask, int64_t height, int64_t width, uint8_t value, double least) {
  std::vector<uint8_t> seen(mask.size());
  std::vector<int64_t> region;
  const int neighbours = value ? 8 : 4;
  static constexpr std::array<std::array<int64_t, 2>, 8> kSteps{{{0, 1}, {1, 0}, {0, -1}, {-1, 0}, {1, 1}, {1, -1}, {-1, 1}, {-1, -1}}};
  for (size_t start = 0; start < mask.size(); ++start) {
    if (seen[start] || mask[start] != value) continue;
    region.assign(1, int64_t(start));
    seen[start] = 1;
    bool at_rim = false;
    for (size_t next = 0; next < region.size(); ++next) {
      const int64_t y = region[next] / width, x = region[next] % width;
      for (int k = 0; k < neighbours; ++k) {
        const int64_t ny = y + kSteps[size_t(k)][0], nx = x + kSteps[size_t(k)][1];
        if (ny < 0 || nx < 0 || ny >= height || nx >= width) {
          at_rim = true;
          continue;
        }
        const size_t at = size_t(ny * width + nx);
        if (seen[at] || mask[at] != value) continue;
        seen[at] = 1;
        region.push_back(int64_t(at));
      }
    }
    // What touches the rim is background, no hole.
    if (double(region.size()) < least && (value || !at_rim))
      for (const int64_t at : region) mask[size_t(at)] = !value;
  }
}
}  // namespace

void TissueConfig::validate() const {
  const auto fail = [](const std::string& what) { throw ArgumentError("tissue: " + what); };
  if (!(um_per_pixel > 0)) fail("um_per_pixel = " + std::to_string(um_per_pixel) + ", expected above 0");
  if (median < 1 || median % 2 == 0) fail("median = " + std::to_string(median) + ", expected odd");
  if (closing < 1 || closing % 2 == 0) fail("closing = " + std::to_string(closing) + ", expected odd");
  if (threshold < 0 || threshold > 255) fail("threshold = " + std::to_string(threshold) + ", expected 0 to 255");
  if (least_saturation < 0 || least_saturation > 255) fail("least_saturation = " + std::to_string(least_saturation) + ", expected 0 to 255");
  if (!(min_region_mm2 >= 0) || !(min_hole_mm2 >= 0)) fail("areas are at least 0");
}

int64_t TissueMask::pixels() const { return std::count(inside.begin(), inside.end(), uint8_t{1}); }

int64_t otsu_threshold(const std::vector<uint8_t>& values) {
  std::array<double, 256> count{};
  for (const uint8_t v : values) ++count[v];
  const double all = double(values.size());
  double sum = 0;
  for (size_t v = 0; v < 256; ++v) sum += double(v) * count[v];
  double below = 0, sum_below = 0, best = 0;
  int64_t first = 0, last = 0;
  for (int64_t t = 1; t < 256; ++t) {
    below += count[size_t(t - 1)], sum_below += double(t - 1) * count[size_t(t - 1)];
    if (below == 0 || below == all) continue;
    const double apart = sum_below / below - (sum - sum_below) / (all - below), between = below * (all - below) * apart * apart;
    if (between > best * (1 + 1e-12)) best = between, first = t;
    if (between >= best * (1 - 1e-12)) last = t;
  }
  return (first + last + 1) / 2;
}

TissueMask find_tissue(const io::SlideRegion& picture, double um_per_pixel, const TissueConfig& config) {
  config.validate();
  TissueMask mask;
  mask.height = picture.height, mask.width = picture.width;
  const auto smooth = median_filtered(saturation(picture), picture.height, picture.width, config.median);
  mask.threshold = config.threshold > 0 ? config.threshold : std::max(otsu_threshold(smooth), config.least_saturation);
  mask.inside.resize(smooth.size());
  for (size_t i = 0; i < smooth.size(); ++i) mask.inside[i] = smooth[i] >= mask.threshold;
  mask.inside = closed(std::move(mask.inside), mask.height, mask.width, config.closing);
  const double pixel_mm2 = um_per_pixel * um_per_pixel * 1e-6;
  drop_small(mask.inside, mask.height, mask.width, 1, config.min_region_mm2 / pixel_mm2);
  drop_small(mask.inside, mask.height, mask.width, 0, config.min_hole_mm2 / pixel_mm2);
  return mask;
}

TissueMask find_tissue(io::Slide& slide, const TissueConfig& config) {
  const double downsample = std::max(1.0, config.um_per_pixel / slide.um_per_pixel());
  auto mask = find_tissue(io::overview(slide, downsample), slide.um_per_pixel() * downsample, config);
  mask.pixel_level0 = downsample;
  return mask;
}

}  // namespace fovea::data
