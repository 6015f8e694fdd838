#include "fovea/report/canvas.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "fovea/core/error.h"

namespace fovea::report {
namespace {

/// Seven rows of five dots, the leftmost dot in bit 4.
struct Glyph {
  char letter;
  uint8_t rows[7];
};

// clang-format off
constexpr Glyph kGlyphs[] = {
    {'0', {0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110}},
    {'1', {0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110}},
    {'2', {0b01110, 0b10001, 0b00001, 0b00110, 0b01000, 0b10000, 0b11111}},
    {'3', {0b11110, 0b00001, 0b00001, 0b01110, 0b00001, 0b00001, 0b11110}},
    {'4', {0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010}},
    {'5', {0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110}},
    {'6', {0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110}},
    {'7', {0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000}},
    {'8', {0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110}},
    {'9', {0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100}},
    {'A', {0b01110, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001}},
    {'B', {0b11110, 0b10001, 0b10001, 0b11110, 0b10001, 0b10001, 0b11110}},
    {'C', {0b01110, 0b10001, 0b10000, 0b10000, 0b10000, 0b10001, 0b01110}},
    {'D', {0b11110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b11110}},
    {'E', {0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111}},
    {'F', {0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b10000}},
    {'G', {0b01110, 0b10001, 0b10000, 0b10111, 0b10001, 0b10001, 0b01111}},
    {'H', {0b10001, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001}},
    {'I', {0b01110, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110}},
    {'J', {0b00111, 0b00010, 0b00010, 0b00010, 0b00010, 0b10010, 0b01100}},
    {'K', {0b10001, 0b10010, 0b10100, 0b11000, 0b10100, 0b10010, 0b10001}},
    {'L', {0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b11111}},
    {'M', {0b10001, 0b11011, 0b10101, 0b10101, 0b10001, 0b10001, 0b10001}},
    {'N', {0b10001, 0b11001, 0b10101, 0b10011, 0b10001, 0b10001, 0b10001}},
    {'O', {0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110}},
    {'P', {0b11110, 0b10001, 0b10001, 0b11110, 0b10000, 0b10000, 0b10000}},
    {'Q', {0b01110, 0b10001, 0b10001, 0b10001, 0b10101, 0b10010, 0b01101}},
    {'R', {0b11110, 0b10001, 0b10001, 0b11110, 0b10100, 0b10010, 0b10001}},
    {'S', {0b01111, 0b10000, 0b10000, 0b01110, 0b00001, 0b00001, 0b11110}},
    {'T', {0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100}},
    {'U', {0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110}},
    {'V', {0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01010, 0b00100}},
    {'W', {0b10001, 0b10001, 0b10001, 0b10101, 0b10101, 0b11011, 0b10001}},
    {'X', {0b10001, 0b10001, 0b01010, 0b00100, 0b01010, 0b10001, 0b10001}},
    {'Y', {0b10001, 0b10001, 0b01010, 0b00100, 0b00100, 0b00100, 0b00100}},
    {'Z', {0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b10000, 0b11111}},
    {'x', {0b00000, 0b00000, 0b10001, 0b01010, 0b00100, 0b01010, 0b10001}},
    {'y', {0b00000, 0b00000, 0b10001, 0b10001, 0b01111, 0b00001, 0b01110}},
    {'z', {0b00000, 0b00000, 0b11111, 0b00010, 0b00100, 0b01000, 0b11111}},
    {'m', {0b00000, 0b00000, 0b11010, 0b10101, 0b10101, 0b10101, 0b10101}},
    {'+', {0b00000, 0b00100, 0b00100, 0b11111, 0b00100, 0b00100, 0b00000}},
    {'-', {0b00000, 0b00000, 0b00000, 0b11111, 0b00000, 0b00000, 0b00000}},
    {'.', {0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b01100, 0b01100}},
    {',', {0b00000, 0b00000, 0b00000, 0b00000, 0b01100, 0b00100, 0b01000}},
    {':', {0b00000, 0b01100, 0b01100, 0b00000, 0b01100, 0b01100, 0b00000}},
    {'=', {0b00000, 0b00000, 0b11111, 0b00000, 0b11111, 0b00000, 0b00000}},
    {'/', {0b00001, 0b00001, 0b00010, 0b00100, 0b01000, 0b10000, 0b10000}},
    {'%', {0b11001, 0b11001, 0b00010, 0b00100, 0b01000, 0b10011, 0b10011}},
};
// clang-format on

const Glyph* find_glyph(char letter) {
  const auto has = [&](char c) {
    return std::find_if(std::begin(kGlyphs), std::end(kGlyphs), [&](const Glyph& g) { return g.letter == c; });
  };
  auto g = has(letter);
  if (g == std::end(kGlyphs) && letter >= 'a' && letter <= 'z') g = has(static_cast<char>(letter - 'a' + 'A'));
  return g == std::end(kGlyphs) ? nullptr : g;
}

void require_rgb(const char* who, const Image& image) {
  if (image.channels == 3) return;
  throw ArgumentError(std::string(who) + ": image has " + std::to_string(image.channels) +
                      " channels, expected 3 (RGB)");
}

}  // namespace

Canvas::Canvas(Image& image) : image_(image) { require_rgb("Canvas", image); }

void Canvas::blend(int64_t y, int64_t x, Colour c, double share) {
  if (y < 0 || y >= image_.height || x < 0 || x >= image_.width) return;
  const auto mix = [&](uint8_t& old, uint8_t fresh) { old = static_cast<uint8_t>(old + (fresh - old) * share + 0.5); };
  uint8_t* p = image_.at(y, x);
  mix(p[0], c.r), mix(p[1], c.g), mix(p[2], c.b);
}

void Canvas::line(int64_t y0, int64_t x0, int64_t y1, int64_t x1, Colour c, double share) {
  const int64_t dx = std::abs(x1 - x0), dy = -std::abs(y1 - y0);
  const int64_t step_x = x0 < x1 ? 1 : -1, step_y = y0 < y1 ? 1 : -1;
  for (int64_t error = dx + dy;;) {
    blend(y0, x0, c, share);
    if (x0 == x1 && y0 == y1) return;
    const int64_t twice = 2 * error;
    if (twice >= dy) error += dy, x0 += step_x;
    if (twice <= dx) error += dx, y0 += step_y;
  }
}

void Canvas::rectangle(int64_t y, int64_t x, int64_t height, int64_t width, Colour c) {
  if (height < 1 || width < 1) return;
  line(y, x, y, x + width - 1, c);
  line(y + height - 1, x, y + height - 1, x + width - 1, c);
  line(y, x, y + height - 1, x, c);
  line(y, x + width - 1, y + height - 1, x + width - 1, c);
}

void Canvas::fill(int64_t y, int64_t x, int64_t height, int64_t width, Colour c, double share) {
  for (int64_t r = std::max<int64_t>(y, 0); r < std::min(y + height, image_.height); ++r) {
    for (int64_t k = std::max<int64_t>(x, 0); k < std::min(x + width, image_.width); ++k) blend(r, k, c, share);
  }
}

void Canvas::paste(const Image& from, int64_t y, int64_t x) {
  require_rgb("Canvas::paste", from);
  for (int64_t r = 0; r < from.height; ++r) {
    for (int64_t k = 0; k < from.width; ++k) blend(y + r, x + k, from.colour_at(r, k));
  }
}

void Canvas::text(int64_t y, int64_t x, std::string_view line, Colour c, int scale) {
  const auto each_dot = [&](auto&& draw) {
    for (size_t i = 0; i < line.size(); ++i) {
      const Glyph* glyph = find_glyph(line[i]);
      if (!glyph) continue;
      for (int r = 0; r < 7; ++r) {
        for (int k = 0; k < 5; ++k) {
          if (glyph->rows[r] >> (4 - k) & 1) draw(y + r * scale, x + (static_cast<int64_t>(i) * 6 + k) * scale);
        }
      }
    }
  };
  each_dot([&](int64_t top, int64_t left) { fill(top - 1, left - 1, scale + 2, scale + 2, {0, 0, 0}); });
  each_dot([&](int64_t top, int64_t left) { fill(top, left, scale, scale, c); });
}

Image montage(std::span<const Image> pictures, int columns, int64_t gap, Colour background) {
  if (pictures.empty() || columns < 1) {
    throw ArgumentError("montage: " + std::to_string(pictures.size()) + " pictures in " + std::to_string(columns) +
                        " columns, expected at least one of each");
  }
  int64_t cell_height = 0, cell_width = 0;
  for (const Image& p : pictures) {
    require_rgb("montage", p);
    cell_height = std::max(cell_height, p.height), cell_width = std::max(cell_width, p.width);
  }
  const int64_t n = static_cast<int64_t>(pictures.size()), across = std::min<int64_t>(columns, n);
  const int64_t down = (n + across - 1) / across;
  Image out =
      Image::filled(down * cell_height + (down - 1) * gap, across * cell_width + (across - 1) * gap, background);
  Canvas canvas(out);
  for (int64_t i = 0; i < n; ++i) {
    const Image& p = pictures[static_cast<size_t>(i)];
    canvas.paste(p, i / across * (cell_height + gap) + (cell_height - p.height) / 2,
                 i % across * (cell_width + gap) + (cell_width - p.width) / 2);
  }
  return out;
}

}  // namespace fovea::report
