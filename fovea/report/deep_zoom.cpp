#include "fovea/report/deep_zoom.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>

#include "fovea/core/error.h"
#include "fovea/report/png.h"
#include "fovea/report/save_file.h"

namespace fovea::report {

namespace {
constexpr int64_t kTile = 254, kOverlap = 1;

Image halved(const Image& from) {
  Image to = Image::filled((from.height + 1) / 2, (from.width + 1) / 2, {});
  for (int64_t y = 0; y < to.height; ++y)
    for (int64_t x = 0; x < to.width; ++x)
      for (int c = 0; c < 3; ++c) {
        const int64_t y1 = std::min(2 * y + 1, from.height - 1), x1 = std::min(2 * x + 1, from.width - 1);
        to.at(y, x)[c] = uint8_t((from.at(2 * y, 2 * x)[c] + from.at(2 * y, x1)[c] + from.at(y1, 2 * x)[c] + from.at(y1, x1)[c] + 2) / 4);
      }
  return to;
}

Image part(const Image& from, int64_t y, int64_t x, int64_t height, int64_t width) {
  Image to = Image::filled(height, width, {});
  for (int64_t j = 0; j < height; ++j) std::memcpy(to.at(j, 0), from.at(y + j, x), size_t(width) * 3);
  return to;
}
}  // namespace

int64_t write_deep_zoom(const std::filesystem::path& path, Image picture) {
  if (path.extension() != ".dzi") throw ArgumentError("write_deep_zoom: " + path.string() + " does not end in .dzi");
  if (picture.channels != 3 || picture.height < 1 || picture.width < 1) throw ArgumentError("write_deep_zoom: the picture is not RGB, or has no pixel");
  const std::string description = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Image xmlns=\"http://schemas.microsoft.com/deepzoom/2008\" Format=\"png\" Overlap=\"" + std::to_string(kOverlap) +
                                  "\" TileSize=\"" + std::to_string(kTile) + "\"><Size Width=\"" + std::to_string(picture.width) + "\" Height=\"" + std::to_string(picture.height) + "\"/></Image>\n";
  auto folder = path;
  folder.replace_extension();
  folder += "_files";
  std::filesystem::remove_all(folder);  // tiles of an older, larger picture
  int64_t tiles = 0;
  // ceil(log2(longer side)) halvings lead to one pixel.
  for (int64_t level = std::bit_width(uint64_t(std::max(picture.height, picture.width) - 1)); level >= 0; --level) {
    const auto of_level = folder / std::to_string(level);
    std::filesystem::create_directories(of_level);
    for (int64_t row = 0; row * kTile < picture.height; ++row)
      for (int64_t column = 0; column * kTile < picture.width; ++column) {
        const int64_t y = std::max<int64_t>(0, row * kTile - kOverlap), x = std::max<int64_t>(0, column * kTile - kOverlap);
        const int64_t y1 = std::min(picture.height, (row + 1) * kTile + kOverlap), x1 = std::min(picture.width, (column + 1) * kTile + kOverlap);
        // Not flushed to the disk one by one: a pyramid has thousands of tiles, and can be made again.
        const auto bytes = encode_png(part(picture, y, x, y1 - y, x1 - x), PngEffort::kFast);
        const auto file = of_level / (std::to_string(column) + "_" + std::to_string(row) + ".png");
        std::ofstream out(file, std::ios::binary);
        if (!out.write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size())).flush()) throw ResourceError(file.string() + ": cannot be written; is the disk full?");
        ++tiles;
      }
    if (level > 0) picture = halved(picture);
  }
  save_file(path, description);  // last: who finds it finds all tiles
  return tiles;
}

}  // namespace fovea::report
