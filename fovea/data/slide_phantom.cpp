#include "fovea/data/slide_phantom.h"

#include <algorithm>
#include <cmath>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"
#include "fovea/io/pyramid_tiff.h"

namespace fovea::data {

namespace {
constexpr double kPi = 3.14159265358979323846;

// A closed wavy line round the middle: inside is tissue.
class Tissue {
 public:
  Tissue(const SlidePhantomConfig& c, Rng& rng) : y_(double(c.height) / 2), x_(double(c.width) / 2), ry_(0.40 * double(c.height)), rx_(0.42 * double(c.width)) {
    for (size_t k = 0; k < 5; ++k) wave_[k] = {double(rng.uniform(-0.05f, 0.05f)), double(rng.uniform(0, float(2 * kPi)))};
  }
  bool holds(double y, double x) const { return depth(y, x) > 0; }
  /// 1 in the middle, 0 at the rim, negative outside.
  double depth(double y, double x) const {
    const double v = (y - y_) / ry_, u = (x - x_) / rx_, angle = std::atan2(v, u);
    double rim = 0.92;
    for (size_t k = 0; k < 5; ++k) rim += wave_[k][0] * std::sin(double(k + 2) * angle + wave_[k][1]);
    return 1 - std::sqrt(u * u + v * v) / rim;
  }

 private:
  double y_, x_, ry_, rx_;
  std::array<std::array<double, 2>, 5> wave_{};
};

// Smooth noise: random values on a coarse grid, joined linearly.
class Fibres {
 public:
  Fibres(const SlidePhantomConfig& c, double step, Rng& rng) : step_(step), columns_(int64_t(double(c.width) / step) + 3), values_(size_t(columns_ * (int64_t(double(c.height) / step) + 3))) {
    for (auto& v : values_) v = rng.uniform(-1, 1);
  }
  float at(int64_t y, int64_t x) const {
    const double v = double(y) / step_, u = double(x) / step_;
    const int64_t iy = int64_t(v), ix = int64_t(u);
    const float fy = float(v - double(iy)), fx = float(u - double(ix));
    const float* p = values_.data() + iy * columns_ + ix;
    return (1 - fy) * ((1 - fx) * p[0] + fx * p[1]) + fy * ((1 - fx) * p[columns_] + fx * p[columns_ + 1]);
  }

 private:
  double step_;
  int64_t columns_;
  std::vector<float> values_;
};
}  // namespace

double SlidePhantom::tumour_share(int64_t y, int64_t x, int64_t edge) const {
  int64_t inside = 0;
  constexpr int64_t kSamples = 16;
  for (int64_t j = 0; j < kSamples; ++j)
    for (int64_t i = 0; i < kSamples; ++i) {
      const double py = double(y) + (double(j) + 0.5) * double(edge) / kSamples, px = double(x) + (double(i) + 0.5) * double(edge) / kSamples;
      inside += std::any_of(tumours.begin(), tumours.end(), [&](const Tumour& t) { return std::hypot(py - t.y, px - t.x) < t.radius; });
    }
  return double(inside) / double(kSamples * kSamples);
}

SlidePhantom make_slide_phantom(const SlidePhantomConfig& c, uint32_t index) {
  if (c.height < 512 || c.width < 512 || c.height > 16384 || c.width > 16384)
    throw ArgumentError("slide phantom: " + std::to_string(c.width) + " x " + std::to_string(c.height) + " pixels, expected 512 to 16384");
  Rng rng(c.seed, 0, index, 71);
  SlidePhantom out;
  const Tissue tissue(c, rng);
  const Fibres coarse(c, 60 / c.um_per_pixel, rng), fine(c, 8 / c.um_per_pixel, rng);
  const double amount_h = std::exp(c.stain * double(rng.normal())), amount_e = std::exp(c.stain * double(rng.normal()));
  const double radius = c.tumour_radius_um / c.um_per_pixel;
  const auto plant = [&](std::vector<SlidePhantom::Tumour>& discs, int64_t count) {
    while (c.tissue && int64_t(discs.size()) < count) {
      const double y = double(rng.uniform()) * double(c.height), x = double(rng.uniform()) * double(c.width), r = radius * double(rng.uniform(0.8f, 1.2f));
      if (tissue.depth(y, x) > 0.25) discs.push_back({y, x, r});
    }
  };
  plant(out.tumours, c.tumours), plant(out.inflamed, c.inflamed);
  // 1. Amounts of haematoxylin and eosin.
  const size_t n = size_t(c.height * c.width);
  std::vector<float> h(n), e(n);
  for (int64_t y = 0; c.tissue && y < c.height; ++y)
    for (int64_t x = 0; x < c.width; ++x)
      if (tissue.holds(double(y), double(x))) {
        const size_t at = size_t(y * c.width + x);
        e[at] = 0.45f + 0.12f * coarse.at(y, x) + 0.10f * fine.at(y, x), h[at] = 0.08f + 0.03f * fine.at(y, x);
      }
  // 2. Nuclei. As many are drawn as the densest region everywhere would hold, then thinned out to each region's own number.
  const double area_mm2 = double(c.height) * double(c.width) * c.um_per_pixel * c.um_per_pixel * 1e-6;
  const double most = c.inflamed > 0 ? std::max(c.crowding, c.lymphocytes) : c.crowding;
  const int64_t drawn = c.tissue ? int64_t(area_mm2 * c.nuclei_per_mm2 * most) : 0;
  for (int64_t k = 0; k < drawn; ++k) {
    const double y = double(rng.uniform()) * double(c.height), x = double(rng.uniform()) * double(c.width);
    const float thinning = rng.uniform();
    const double spread = double(rng.uniform(0.8f, 1.25f)), squeeze = double(rng.uniform(0.65f, 1.0f)), angle = double(rng.uniform(0, float(kPi)));
    const float dark = rng.uniform(0.75f, 1.1f);
    const auto lies_in = [&](const std::vector<SlidePhantom::Tumour>& discs) { return std::any_of(discs.begin(), discs.end(), [&](const auto& t) { return std::hypot(y - t.y, x - t.x) < t.radius; }); };
    const bool sick = lies_in(out.tumours), inflamed = !sick && lies_in(out.inflamed);
    if (thinning >= float((sick ? c.crowding : inflamed ? c.lymphocytes : 1) / most) || !tissue.holds(y, x)) continue;
    const double r = 3.5 / c.um_per_pixel * spread * (sick ? c.growth : inflamed ? 0.85 : 1), cos = std::cos(angle), sin = std::sin(angle);
    for (int64_t py = std::max<int64_t>(0, int64_t(y - r)); py <= std::min(c.height - 1, int64_t(y + r)); ++py)
      for (int64_t px = std::max<int64_t>(0, int64_t(x - r)); px <= std::min(c.width - 1, int64_t(x + r)); ++px) {
        const double u = (cos * (double(px) - x) + sin * (double(py) - y)) / r, v = (cos * (double(py) - y) - sin * (double(px) - x)) / (r * squeeze);
        if (u * u + v * v <= 1) h[size_t(py * c.width + px)] = dark * (sick || inflamed ? 1.05f : 0.9f);
      }
  }
  // 3. Light through the stains (Beer and Lambert), and a camera's noise.
  io::SlideRegion level{c.height, c.width, std::vector<uint8_t>(3 * n)};
  const float haematoxylin[3] = {0.65f, 0.70f, 0.29f}, eosin[3] = {0.07f, 0.99f, 0.11f};
  for (size_t i = 0; i < n; ++i) {
    const uint32_t noise = rng.next_u32();
    for (size_t k = 0; k < 3; ++k) {
      const float density = float(amount_h) * h[i] * haematoxylin[k] + float(amount_e) * e[i] * eosin[k];
      level.rgb[3 * i + k] = uint8_t(std::clamp(244.f * std::pow(10.f, -density) + float(int((noise >> (8 * k)) & 7) - 3), 0.f, 255.f));
    }
  }
  out.levels.push_back(std::move(level));
  while (int64_t(out.levels.size()) < c.levels) out.levels.push_back(io::halved(io::halved(out.levels.back())));
  return out;
}

}  // namespace fovea::data
