#pragma once
#include <cstdint>
#include <vector>

#include "fovea/report/colour.h"

namespace fovea::report {

/// A raster picture, 8 bits a channel, row by row from the top left; channels 1 grey, 3 RGB, 4 RGBA.
struct Image {
  int64_t height = 0, width = 0;
  int channels = 3;
  std::vector<uint8_t> pixels;  // height * width * channels

  static Image filled(int64_t height, int64_t width, Colour c) {
    Image image{height, width, 3, std::vector<uint8_t>(static_cast<size_t>(height * width * 3))};
    for (size_t i = 0; i < image.pixels.size(); i += 3) {
      image.pixels[i] = c.r, image.pixels[i + 1] = c.g, image.pixels[i + 2] = c.b;
    }
    return image;
  }

  uint8_t* at(int64_t y, int64_t x) { return pixels.data() + (y * width + x) * channels; }
  const uint8_t* at(int64_t y, int64_t x) const { return pixels.data() + (y * width + x) * channels; }
  /// The colour of a pixel of an RGB or RGBA image.
  Colour colour_at(int64_t y, int64_t x) const {
    const uint8_t* p = at(y, x);
    return {p[0], p[1], p[2]};
  }
};

}  // namespace fovea::report
