#pragma once
#include <cstdint>
#include <span>
#include <string_view>

#include "fovea/report/image.h"

namespace fovea::report {

/// Draws on an RGB image. Coordinates are pixels, y down and x right; whatever falls outside is left out.
class Canvas {
 public:
  /// Errors: ArgumentError unless image has three channels. The image must outlive the canvas.
  explicit Canvas(Image& image);

  /// Mixes `c` into a pixel: 0 leaves it, 1 replaces it.
  void blend(int64_t y, int64_t x, Colour c, double share = 1.0);
  /// A line of one pixel (Bresenham), both ends included.
  void line(int64_t y0, int64_t x0, int64_t y1, int64_t x1, Colour c, double share = 1.0);
  /// Outline of one pixel around rows y..y+height-1 and columns x..x+width-1.
  void rectangle(int64_t y, int64_t x, int64_t height, int64_t width, Colour c);
  void fill(int64_t y, int64_t x, int64_t height, int64_t width, Colour c, double share = 1.0);
  /// Copies an RGB image; its top left goes to (y, x).
  void paste(const Image& from, int64_t y, int64_t x);
  /// One line of text with its top left at (y, x), each dot of a glyph `scale` pixels wide, with a dark rim so that it
  /// can be read on any picture. Drawn: digits, letters (lower-case as upper-case, but x y z m), space and + - . , : =
  /// / %.
  void text(int64_t y, int64_t x, std::string_view line, Colour c, int scale = 1);

 private:
  Image& image_;
};

/// Pixels that Canvas::text covers.
constexpr int64_t text_width(std::string_view line, int scale) {
  return line.empty() ? 0 : (static_cast<int64_t>(line.size()) * 6 - 1) * scale;
}
constexpr int64_t text_height(int scale) { return 7 * scale; }

/// Pictures in a grid, row by row, each centred in a cell of the largest one's size; `gap` pixels between cells.
/// Errors: ArgumentError when there is none, columns < 1, or one is not RGB.
Image montage(std::span<const Image> pictures, int columns, int64_t gap, Colour background);

}  // namespace fovea::report
