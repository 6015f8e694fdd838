#include "fovea/report/colour.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace fovea::report {
namespace {

using Linear = std::array<double, 3>;

/// OKLab to linear sRGB, which may lie outside [0, 1].
Linear oklab_to_linear(double lightness, double a, double b) {
  const double l = std::pow(lightness + 0.3963377774 * a + 0.2158037573 * b, 3);
  const double m = std::pow(lightness - 0.1055613458 * a - 0.0638541728 * b, 3);
  const double s = std::pow(lightness - 0.0894841775 * a - 1.2914855480 * b, 3);
  return {4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
          -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
          -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s};
}

bool in_gamut(const Linear& c) {
  return std::all_of(c.begin(), c.end(), [](double v) { return v >= 0 && v <= 1; });
}

uint8_t encode(double linear) {
  linear = std::clamp(linear, 0.0, 1.0);
  const double v = linear <= 0.0031308 ? 12.92 * linear : 1.055 * std::pow(linear, 1 / 2.4) - 0.055;
  return static_cast<uint8_t>(std::lround(255 * v));
}

uint8_t mix(uint8_t from, uint8_t to, double share) {
  return static_cast<uint8_t>(std::lround(from + (to - from) * share));
}

Colour make_heat_colour(double t) {
  const double lightness = 0.18 + 0.78 * t;
  const double hue = (300 + 165 * t) * std::numbers::pi / 180;  // violet over red (30 degrees) to yellow (105)
  // The largest chroma on the screen, at most 0.19: bisection, because the gamut has no closed form in OKLab.
  double low = 0, high = 0.19;
  for (int i = 0; i < 20; ++i) {
    const double chroma = (low + high) / 2;
    (in_gamut(oklab_to_linear(lightness, chroma * std::cos(hue), chroma * std::sin(hue))) ? low : high) = chroma;
  }
  const Linear c = oklab_to_linear(lightness, low * std::cos(hue), low * std::sin(hue));
  return {encode(c[0]), encode(c[1]), encode(c[2])};
}

}  // namespace

std::string to_hex(Colour c) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out = "#";
  for (uint8_t v : {c.r, c.g, c.b}) out += digits[v >> 4], out += digits[v & 15];
  return out;
}

Colour category_colour(int index) {
  // Okabe & Ito 2008, "Color Universal Design", without black; ordered so that neighbours differ most.
  static constexpr Colour base[] = {{230, 159, 0},  {86, 180, 233}, {0, 158, 115}, {204, 121, 167},
                                    {240, 228, 66}, {0, 114, 178},  {213, 94, 0}};
  const int i = std::max(index, 0) % 21;
  const Colour c = base[i % 7];
  if (i < 7) return c;
  const uint8_t towards = i < 14 ? 255 : 0;
  return {mix(c.r, towards, 0.45), mix(c.g, towards, 0.45), mix(c.b, towards, 0.45)};
}

Colour heat_colour(double t) {
  static const std::array<Colour, 256> table = [] {
    std::array<Colour, 256> colours;
    for (int i = 0; i < 256; ++i) colours[i] = make_heat_colour(i / 255.0);
    return colours;
  }();
  return table[t > 0 ? std::lround(255 * std::min(t, 1.0)) : 0];  // the comparison sends NaN to 0
}

}  // namespace fovea::report
