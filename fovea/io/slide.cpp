#include "fovea/io/slide.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "fovea/core/error.h"
#include "fovea/io/json_file.h"

namespace fovea::io {

namespace fs = std::filesystem;

namespace {
// Sides of a level are those of level 0 over its downsample, rounded; otherwise pixels of two levels do not lie over each other.
void check_levels(const fs::path& path, const std::vector<SlideLevel>& levels) {
  if (levels.empty()) throw IoError(path, "has no levels, expected at least one");
  for (size_t i = 0; i < levels.size(); ++i) {
    const SlideLevel& level = levels[i];
    const auto side = [&](int64_t n) { return std::to_string(n); };
    if (level.height < 1 || level.width < 1 || !std::isfinite(level.downsample) || level.downsample < 1)
      throw IoError(path, "level " + std::to_string(i) + " is " + side(level.width) + " x " + side(level.height) + " pixels, expected at least one");
    if (i > 0 && level.downsample <= levels[i - 1].downsample)
      throw IoError(path, "level " + std::to_string(i) + " is as large as the one before it, expected smaller");
    const double by_width = double(levels[0].width) / double(level.width), by_height = double(levels[0].height) / double(level.height);
    const double rounding = 2.0 / double(std::min(level.width, level.height));
    if (std::abs(by_width / by_height - 1) > 0.01 + rounding)
      throw IoError(path, "level " + std::to_string(i) + " is smaller than level 0 by " + std::to_string(by_width) + " in width and " + std::to_string(by_height) + " in height, expected one factor");
  }
}

// For each of `to` new pixels: the first old one and the shares of those it covers.
struct Share {
  int64_t first = 0;
  std::vector<float> weights;
};
std::vector<Share> shares(int64_t from, int64_t to) {
  std::vector<Share> all(static_cast<size_t>(to));
  const double step = double(from) / double(to);
  for (int64_t i = 0; i < to; ++i) {
    const double begin = double(i) * step, end = std::min(double(from), begin + step);
    Share& share = all[size_t(i)];
    share.first = std::min(int64_t(begin), from - 1);
    for (int64_t j = share.first; j < from && (double(j) < end - 1e-9 || share.weights.empty()); ++j)
      share.weights.push_back(float((std::min(end, double(j + 1)) - std::max(begin, double(j))) / (end - begin)));
  }
  return all;
}
}  // namespace

size_t SlideInfo::level_for(double downsample) const {
  size_t best = 0;
  for (size_t i = 1; i < levels.size(); ++i)
    if (levels[i].downsample <= downsample * 1.01) best = i;
  return best;
}

bool is_slide_name(const fs::path& path) {
  static constexpr std::array kEndings = {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide"};
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  return std::find(kEndings.begin(), kEndings.end(), ending) != kEndings.end();
}

SlideRegion resized(const SlideRegion& region, int64_t height, int64_t width) {
  if (height == region.height && width == region.width) return region;
  if (height < 1 || width < 1 || region.rgb.empty()) throw ArgumentError("resized: " + std::to_string(width) + " x " + std::to_string(height) + " pixels, expected at least one");
  const auto rows = shares(region.height, height), columns = shares(region.width, width);
  SlideRegion out{height, width, std::vector<uint8_t>(size_t(height * width * 3))};
  std::vector<float> row(size_t(region.width) * 3);
  for (int64_t y = 0; y < height; ++y) {
    std::fill(row.begin(), row.end(), 0.f);
    for (size_t j = 0; j < rows[size_t(y)].weights.size(); ++j) {
      const uint8_t* from = region.at(rows[size_t(y)].first + int64_t(j), 0);
      for (size_t i = 0; i < row.size(); ++i) row[i] += rows[size_t(y)].weights[j] * float(from[i]);
    }
    uint8_t* to = out.rgb.data() + y * width * 3;
    for (const Share& column : columns)
      for (size_t c = 0; c < 3; ++c) {
        float sum = 0;
        for (size_t j = 0; j < column.weights.size(); ++j) sum += column.weights[j] * row[(size_t(column.first) + j) * 3 + c];
        *to++ = uint8_t(std::clamp(sum + 0.5f, 0.f, 255.f));
      }
  }
  return out;
}

SlideInfo parse_slide_head(const fs::path& path, std::string_view line) {
  SlideInfo info;
  try {
    const Json head = Json::parse(line);
    info.vendor = head.at("vendor").get<std::string>();
    for (const Json& level : head.at("levels")) info.levels.push_back({whole_number(level.at(0)), whole_number(level.at(1)), level.at(2).get<double>()});
    if (head.contains("um_per_pixel")) info.um_per_pixel = head.at("um_per_pixel").get<double>();
    if (head.contains("objective_power")) info.objective_power = head.at("objective_power").get<double>();
    info.file_bytes = uint64_t(whole_number(head.at("file_bytes")));
    info.notes = head.at("notes").get<std::vector<std::string>>();
  } catch (const Json::exception&) {
    throw IoError(path, "its reader said nothing that can be understood");
  }
  if (info.um_per_pixel && !(*info.um_per_pixel > 0 && *info.um_per_pixel < 1000)) {
    info.notes.push_back("says that a pixel is " + std::to_string(*info.um_per_pixel) + " micrometres wide; taken as not said");
    info.um_per_pixel.reset();
  }
  check_levels(path, info.levels);
  return info;
}

Slide::Slide(const fs::path& path, std::optional<double> um_per_pixel)
    : path_(path), reader_(std::make_unique<ReaderProcess>(path, std::vector<std::string>{"slide", path.string()}, ReaderTalk::kRequests)),
      info_(parse_slide_head(path, reader_->read_line(size_t{1} << 20))) {
  if (um_per_pixel && !(*um_per_pixel > 0 && *um_per_pixel < 1000)) throw ArgumentError("--um-per-pixel " + std::to_string(*um_per_pixel) + ", expected above 0 and below 1000");
  if (um_per_pixel) info_.um_per_pixel = um_per_pixel;
}

double Slide::um_per_pixel() const {
  if (!info_.um_per_pixel) throw IoError(path_, "does not say how large its pixels are; give it with --um-per-pixel (0.25 at 40x, 0.5 at 20x)");
  return *info_.um_per_pixel;
}

SlideRegion Slide::read(size_t level, int64_t y, int64_t x, int64_t height, int64_t width) {
  if (level >= info_.levels.size())
    throw IoError(path_, "has no level " + std::to_string(level) + ", there are levels 0 to " + std::to_string(info_.levels.size() - 1));
  if (height < 1 || width < 1 || height > (int64_t{1} << 26) / width)
    throw IoError(path_, "a region of " + std::to_string(width) + " x " + std::to_string(height) + " pixels was asked for, expected 1 to 2^26");
  reader_->request(std::to_string(level) + " " + std::to_string(y) + " " + std::to_string(x) + " " + std::to_string(height) + " " + std::to_string(width) + "\n");
  SlideRegion region{height, width, std::vector<uint8_t>(size_t(height * width * 3))};
  const auto bytes = std::as_writable_bytes(std::span(region.rgb));
  if (reader_->read_some(bytes) != bytes.size()) throw IoError(path_, "its reader ended before the region was whole");
  return region;
}

SlideRegion overview(Slide& slide, double downsample) {
  const auto& levels = slide.info().levels;
  const SlideLevel& finest = levels.front();
  if (!(downsample >= 1)) throw ArgumentError("overview: downsample " + std::to_string(downsample) + ", expected at least 1");
  const int64_t height = int64_t(std::ceil(double(finest.height) / downsample)), width = int64_t(std::ceil(double(finest.width) / downsample));
  if (height > (int64_t{1} << 26) / width) throw IoError(slide.path(), "an overview of " + std::to_string(width) + " x " + std::to_string(height) + " pixels was asked for, expected at most 2^26; take larger pixels");
  const size_t level = slide.info().level_for(downsample);
  const SlideLevel& from = levels[level];
  const double step = downsample / from.downsample;  // of the level's pixels to one of the overview
  SlideRegion out{height, width, std::vector<uint8_t>(size_t(height * width * 3), 255)};
  // As many rows at once as make 4 million pixels of the level.
  const int64_t rows = std::max<int64_t>(1, int64_t((int64_t{1} << 22) / (double(from.width) * step)));
  for (int64_t y = 0; y < height; y += rows) {
    const int64_t end = std::min(height, y + rows);
    const int64_t first = int64_t(std::lround(double(y) * step)), last = std::min(from.height, int64_t(std::lround(double(end) * step)));
    if (last <= first) continue;
    const auto strip = slide.read(level, int64_t(std::lround(double(first) * from.downsample)), 0, last - first, from.width);
    // The strip's own last row and column may stand for less than a whole pixel of the overview.
    const auto part = resized(strip, std::min(end - y, std::max<int64_t>(1, int64_t(std::ceil(double(last - first) / step - 1e-6)))), width);
    std::copy(part.rgb.begin(), part.rgb.end(), out.rgb.begin() + y * width * 3);
  }
  return out;
}

}  // namespace fovea::io
