#include "fovea/data/tile_statistics.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "fovea/core/error.h"

namespace fovea::data {

namespace {
using Plane = std::vector<float>;

// Rows of the inverse of Ruifrok and Johnston's stain matrix (haematoxylin, eosin, their cross product), which turn the
// optical densities of red, green and blue into amounts of stain.
std::array<std::array<float, 3>, 2> unmixing() {
  using V = std::array<double, 3>;
  const auto unit = [](V v) {
    const double n = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    return V{v[0] / n, v[1] / n, v[2] / n};
  };
  const auto cross = [](const V& a, const V& b) { return V{a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]}; };
  const V h = unit({0.65, 0.70, 0.29}), e = unit({0.07, 0.99, 0.11}), r = unit(cross(h, e));
  const V eh = cross(e, r), he = cross(r, h);
  const double volume = h[0] * eh[0] + h[1] * eh[1] + h[2] * eh[2];
  std::array<std::array<float, 3>, 2> rows{};
  for (size_t c = 0; c < 3; ++c) rows[0][c] = float(eh[c] / volume), rows[1][c] = float(he[c] / volume);
  return rows;
}

void add_moments(std::vector<float>& out, const Plane& values) {
  double sum = 0, squares = 0;
  for (const float v : values) sum += v, squares += double(v) * v;
  const double mean = sum / double(values.size());
  out.push_back(float(mean)), out.push_back(float(std::sqrt(std::max(0.0, squares / double(values.size()) - mean * mean))));
}

void add_percentiles(std::vector<float>& out, Plane values) {
  for (const double share : {0.1, 0.5, 0.9}) {
    const auto at = values.begin() + std::ptrdiff_t(share * double(values.size() - 1));
    std::nth_element(values.begin(), at, values.end());
    out.push_back(*at);
  }
}

Plane gradient(const Plane& plane, int64_t height, int64_t width, int64_t step) {
  Plane out;
  for (int64_t y = step; y + step < height; y += 1)
    for (int64_t x = step; x + step < width; x += 1) {
      const float dy = plane[size_t((y + step) * width + x)] - plane[size_t((y - step) * width + x)], dx = plane[size_t(y * width + x + step)] - plane[size_t(y * width + x - step)];
      out.push_back(std::sqrt(dy * dy + dx * dx));
    }
  return out;
}

// Of each pixel's ring of eight: how many are at least as high, if they lie side by side; else the ninth bin.
void add_patterns(std::vector<float>& out, const Plane& plane, int64_t height, int64_t width, int64_t r) {
  std::array<double, 10> count{};
  const int64_t steps[8] = {-r * width - r, -r * width, -r * width + r, r, r * width + r, r * width, r * width - r, -r};
  double all = 0;
  for (int64_t y = r; y + r < height; ++y)
    for (int64_t x = r; x + r < width; ++x) {
      const int64_t at = y * width + x;
      unsigned bits = 0;
      for (int k = 0; k < 8; ++k) bits |= unsigned(plane[size_t(at + steps[k])] >= plane[size_t(at)]) << k;
      const unsigned changes = bits ^ ((bits << 1 | bits >> 7) & 255u);
      ++count[__builtin_popcount(changes) <= 2 ? size_t(__builtin_popcount(bits)) : 9];
      ++all;
    }
  for (const double n : count) out.push_back(float(n / std::max(all, 1.0)));
}
}  // namespace

std::vector<float> tile_statistics(const io::SlideRegion& tile) {
  if (tile.height < 16 || tile.width < 16) throw ArgumentError("tile_statistics: " + std::to_string(tile.width) + " x " + std::to_string(tile.height) + " pixels, expected at least 16 x 16");
  static const auto kUnmix = unmixing();
  static const auto kDensity = [] {
    std::array<float, 256> table{};
    for (size_t v = 0; v < 256; ++v) table[v] = float(-std::log10((double(v) + 1) / 256));
    return table;
  }();
  const size_t n = size_t(tile.height * tile.width);
  Plane stain[2] = {Plane(n), Plane(n)}, saturation(n), brightness(n);
  double dark_blue = 0;
  for (size_t i = 0; i < n; ++i) {
    const uint8_t* p = tile.rgb.data() + 3 * i;
    for (size_t s = 0; s < 2; ++s) stain[s][i] = kUnmix[s][0] * kDensity[p[0]] + kUnmix[s][1] * kDensity[p[1]] + kUnmix[s][2] * kDensity[p[2]];
    const auto [least, most] = std::minmax({p[0], p[1], p[2]});
    saturation[i] = most ? float(most - least) / float(most) : 0.f, brightness[i] = float(most) / 255.f;
    dark_blue += stain[0][i] > 0.5f;
  }
  std::vector<float> out;
  for (const Plane& plane : stain) add_moments(out, plane), add_percentiles(out, plane);
  add_moments(out, saturation), add_moments(out, brightness);
  for (const int64_t step : {1, 2, 4}) add_moments(out, gradient(stain[0], tile.height, tile.width, step));
  out.push_back(float(dark_blue / double(n)));
  for (const int64_t r : {1, 2, 4}) {
    std::vector<float> patterns;
    add_patterns(patterns, stain[0], tile.height, tile.width, r);
    out.insert(out.end(), patterns.begin(), patterns.end() - 1);  // the last follows from the others
  }
  FOVEA_CHECK(out.size() == tile_statistics_names().size(), "one name a number");
  return out;
}

const std::vector<std::string>& tile_statistics_names() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> names;
    for (const char* stain : {"haematoxylin", "eosin"})
      for (const char* what : {"mean", "deviation", "p10", "p50", "p90"}) names.push_back(std::string(stain) + "_" + what);
    for (const char* what : {"saturation_mean", "saturation_deviation", "brightness_mean", "brightness_deviation"}) names.push_back(what);
    for (const char* step : {"1", "2", "4"})
      for (const char* what : {"mean", "deviation"}) names.push_back(std::string("gradient_") + step + "_" + what);
    names.push_back("dark_blue_share");
    for (const char* r : {"1", "2", "4"})
      for (int k = 0; k < 9; ++k) names.push_back(std::string("pattern_") + r + "_" + std::to_string(k));
    return names;
  }();
  return kNames;
}

}  // namespace fovea::data
