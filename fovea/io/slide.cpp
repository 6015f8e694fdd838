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

Slide::Slide(const fs::path& path, std::optional<double> um_per_pixel)
    : path_(path), reader_(std::make_unique<ReaderProcess>(path, std::vector<std::string>{"slide", path.string()}, ReaderTalk::kRequests)) {
  const std::string line = reader_->read_line(size_t{1} << 20);
  try {
    const Json head = Json::parse(line);
    info_.vendor = head.at("vendor").get<std::string>();
    for (const Json& level : head.at("levels")) info_.levels.push_back({level.at(0).get<int64_t>(), level.at(1).get<int64_t>(), level.at(2).get<double>()});
    if (head.contains("um_per_pixel")) info_.um_per_pixel = head.at("um_per_pixel").get<double>();
    if (head.contains("objective_power")) info_.objective_power = head.at("objective_power").get<double>();
    info_.file_bytes = head.at("file_bytes").get<uint64_t>();
    info_.notes = head.at("notes").get<std::vector<std::string>>();
  } catch (const Json::exception&) {
    throw IoError(path, "its reader said nothing that can be understood");
  }
  if (um_per_pixel && !(*um_per_pixel > 0 && *um_per_pixel < 1000)) throw ArgumentError("--um-per-pixel " + std::to_string(*um_per_pixel) + ", expected above 0 and below 1000");
  if (um_per_pixel) info_.um_per_pixel = um_per_pixel;
  check_levels(path, info_.levels);
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

}  // namespace fovea::io
