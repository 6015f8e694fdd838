#include "fovea/io/pyramid_tiff.h"

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "fovea/core/error.h"
#include "fovea/io/atomic_file.h"

namespace fovea::io {

namespace {
constexpr int64_t kTile = 256;

// One tile of a level, deflated; what lies beyond its edge repeats the last row and column.
std::vector<uint8_t> deflated_tile(const SlideRegion& level, int64_t y0, int64_t x0) {
  std::vector<uint8_t> raw(size_t(kTile * kTile * 3));
  for (int64_t y = 0; y < kTile; ++y)
    for (int64_t x = 0; x < kTile; ++x)
      std::memcpy(raw.data() + (y * kTile + x) * 3, level.at(std::min(y0 + y, level.height - 1), std::min(x0 + x, level.width - 1)), 3);
  std::vector<uint8_t> packed(compressBound(uLong(raw.size())));
  uLongf size = uLongf(packed.size());
  FOVEA_CHECK(compress2(packed.data(), &size, raw.data(), uLong(raw.size()), 1) == Z_OK, "deflate");
  packed.resize(size);
  return packed;
}

class Bytes {
 public:
  template <class T>
  void put(T value) {
    const auto* p = reinterpret_cast<const uint8_t*>(&value);
    bytes.insert(bytes.end(), p, p + sizeof value);
  }
  std::vector<uint8_t> bytes;
};

struct Entry {
  uint16_t tag, type;
  std::vector<uint32_t> values;  // of a rational: numerator, denominator
};

// A directory at `offset`, with the values that do not fit into its entries behind it.
std::vector<uint8_t> directory(const std::vector<Entry>& entries, uint32_t offset, bool last) {
  Bytes head, tail;
  const uint32_t behind = offset + 2 + 12 * uint32_t(entries.size()) + 4;
  head.put(uint16_t(entries.size()));
  for (const Entry& e : entries) {
    const uint32_t count = uint32_t(e.values.size()) / (e.type == 5 ? 2 : 1), width = e.type == 3 ? 2 : 4;
    Bytes values;
    for (const uint32_t v : e.values) width == 2 ? values.put(uint16_t(v)) : values.put(v);
    head.put(e.tag), head.put(e.type), head.put(count);
    if (values.bytes.size() <= 4) {
      values.bytes.resize(4);
      head.bytes.insert(head.bytes.end(), values.bytes.begin(), values.bytes.end());
    } else {
      head.put(uint32_t(behind + tail.bytes.size()));
      values.bytes.resize((values.bytes.size() + 3) / 4 * 4);
      tail.bytes.insert(tail.bytes.end(), values.bytes.begin(), values.bytes.end());
    }
  }
  head.put(uint32_t(last ? 0 : behind + tail.bytes.size()));
  head.bytes.insert(head.bytes.end(), tail.bytes.begin(), tail.bytes.end());
  return head.bytes;
}
}  // namespace

void write_pyramid_tiff(const std::filesystem::path& path, std::span<const SlideRegion> levels, std::optional<double> um_per_pixel) {
  if (levels.empty()) throw ArgumentError(path.string() + ": a slide needs a level");
  std::vector<std::vector<std::vector<uint8_t>>> tiles;
  for (const SlideRegion& level : levels) {
    if (level.height < 1 || level.width < 1 || int64_t(level.rgb.size()) != level.height * level.width * 3)
      throw ArgumentError(path.string() + ": a level of " + std::to_string(level.width) + " x " + std::to_string(level.height) + " pixels has " + std::to_string(level.rgb.size()) + " bytes, expected three a pixel");
    auto& own = tiles.emplace_back();
    for (int64_t y = 0; y < level.height; y += kTile)
      for (int64_t x = 0; x < level.width; x += kTile) own.push_back(deflated_tile(level, y, x));
  }
  // Directories come first; their size does not depend on the offsets in them, so they are laid out twice.
  std::vector<std::vector<uint8_t>> directories(levels.size());
  uint64_t data = 0;
  for (int pass = 0; pass < 2; ++pass) {
    uint64_t at = 8, next = data;
    for (size_t i = 0; i < levels.size(); ++i) {
      std::vector<uint32_t> offsets, counts;
      for (const auto& tile : tiles[i]) offsets.push_back(uint32_t(next)), counts.push_back(uint32_t(tile.size())), next += tile.size();
      std::vector<Entry> entries = {{254, 4, {uint32_t(i > 0)}}, {256, 4, {uint32_t(levels[i].width)}}, {257, 4, {uint32_t(levels[i].height)}}, {258, 3, {8, 8, 8}},
                                    {259, 3, {8}}, {262, 3, {2}}, {277, 3, {3}}, {284, 3, {1}}, {322, 4, {kTile}}, {323, 4, {kTile}}, {324, 4, offsets}, {325, 4, counts}};
      if (um_per_pixel) {
        const double scale = double(levels[0].width) / double(levels[i].width), per_cm = 1e4 / (*um_per_pixel * scale);
        const std::vector<uint32_t> rational = {uint32_t(std::lround(per_cm * 1000)), 1000};
        entries.insert(entries.begin() + 7, {{282, 5, rational}, {283, 5, rational}});
        entries.insert(entries.begin() + 10, {296, 3, {3}});
      }
      directories[i] = directory(entries, uint32_t(at), i + 1 == levels.size());
      at += directories[i].size();
    }
    data = at;
    if (next > std::numeric_limits<uint32_t>::max()) throw ResourceError(path.string() + ": more than the 4 GiB of a classic TIFF");
  }
  AtomicFile file(path);
  Bytes header;
  header.put(uint16_t(0x4949)), header.put(uint16_t(42)), header.put(uint32_t(8));
  file.write(header.bytes.data(), header.bytes.size());
  for (const auto& d : directories) file.write(d.data(), d.size());
  for (const auto& level : tiles)
    for (const auto& tile : level) file.write(tile.data(), tile.size());
  file.commit();
}

SlideRegion halved(const SlideRegion& from) {
  SlideRegion to{(from.height + 1) / 2, (from.width + 1) / 2, {}};
  to.rgb.resize(size_t(to.height * to.width * 3));
  for (int64_t y = 0; y < to.height; ++y)
    for (int64_t x = 0; x < to.width; ++x)
      for (int64_t c = 0; c < 3; ++c) {
        const int64_t y1 = std::min(2 * y + 1, from.height - 1), x1 = std::min(2 * x + 1, from.width - 1);
        to.rgb[size_t((y * to.width + x) * 3 + c)] = uint8_t((from.at(2 * y, 2 * x)[c] + from.at(2 * y, x1)[c] + from.at(y1, 2 * x)[c] + from.at(y1, x1)[c] + 2) / 4);
      }
  return to;
}

}  // namespace fovea::io
