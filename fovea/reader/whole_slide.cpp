#include "fovea/reader/whole_slide.h"

#include <openslide.h>

#include <charconv>
#include <cmath>
#include <cstring>

#include "fovea/core/error.h"

namespace fovea::reader {

namespace fs = std::filesystem;

namespace {
// "cannot read TIFF tile" and the like: no line ends, nothing behind a path.
std::string reason(const char* said) {
  std::string text = said ? said : "unknown";
  return text.substr(0, 200);
}

// Of a tag that gives pixels per centimetre or inch: what no microscope has is a screen's 72 or 96 dpi.
bool believable(double um) { return um > 0.02 && um < 50; }
}  // namespace

WholeSlide::WholeSlide(const fs::path& path) : path_(path) {
  std::error_code error;
  if (!fs::exists(path, error)) throw IoError(path, "no such file");
  if (fs::is_directory(path, error)) throw IoError(path, "is a folder, expected a slide");
  slide_.reset(openslide_open(path.c_str()), [](openslide_t* s) {
    if (s) openslide_close(s);
  });
  if (!slide_) throw IoError(path, "is truncated, damaged, or no slide that OpenSlide " + std::string(openslide_get_version()) + " can read (tiled TIFF, SVS, NDPI, MRXS, SCN, BIF, VMS)");
  check();
  for (int32_t i = 0; i < openslide_get_level_count(slide_.get()); ++i) {
    int64_t width = 0, height = 0;
    openslide_get_level_dimensions(slide_.get(), i, &width, &height);
    // OpenSlide 3.4.1 with libtiff 4.5 paints a level that is less high than one of its tiles too far down.
    const auto tile = number(("openslide.level[" + std::to_string(i) + "].tile-height").c_str());
    if (tile && double(height) < *tile) {
      if (i == 0) throw IoError(path_, "is " + std::to_string(height) + " pixels high, expected at least one of its tiles of " + std::to_string(int64_t(*tile)));
      notes_.push_back("level " + std::to_string(i) + " is smaller than one tile and left out");
      break;
    }
    levels_.push_back({height, width, openslide_get_level_downsample(slide_.get(), i)});
  }
  find_resolution();
  if (const char* colour = openslide_get_property_value(slide_.get(), OPENSLIDE_PROPERTY_NAME_BACKGROUND_COLOR); colour && std::strlen(colour) == 6)
    for (size_t c = 0; c < 3; ++c) std::from_chars(colour + 2 * c, colour + 2 * c + 2, background_[c], 16);
}

std::string WholeSlide::vendor() const {
  const char* name = openslide_get_property_value(slide_.get(), OPENSLIDE_PROPERTY_NAME_VENDOR);
  return name ? name : "unknown";
}

std::optional<double> WholeSlide::number(const char* property) const {
  const char* text = openslide_get_property_value(slide_.get(), property);
  double value = 0;
  if (!text || std::from_chars(text, text + std::strlen(text), value).ec != std::errc() || !std::isfinite(value) || value <= 0) return {};
  return value;
}

void WholeSlide::find_resolution() {
  const auto x = number(OPENSLIDE_PROPERTY_NAME_MPP_X), y = number(OPENSLIDE_PROPERTY_NAME_MPP_Y);
  if (x && y) {
    um_per_pixel_ = (*x + *y) / 2;
    if (std::abs(*x / *y - 1) > 0.02) notes_.push_back("pixels are " + std::to_string(*x) + " um wide and " + std::to_string(*y) + " um high; their mean is used");
    return;
  }
  const char* unit = openslide_get_property_value(slide_.get(), "tiff.ResolutionUnit");
  const auto per_unit = number("tiff.XResolution");
  if (!unit || !per_unit) return;
  const double um = (std::strcmp(unit, "centimeter") == 0 ? 1e4 : std::strcmp(unit, "inch") == 0 ? 25400.0 : 0) / *per_unit;
  if (believable(um))
    um_per_pixel_ = um;
  else if (um > 0)
    notes_.push_back("its resolution tag says " + std::to_string(um) + " um per pixel, which no microscope has: not used");
}

void WholeSlide::check() const {
  if (const char* error = openslide_get_error(slide_.get())) throw IoError(path_, "is damaged or truncated: " + reason(error));
}

std::vector<uint8_t> WholeSlide::read(int32_t level, int64_t y, int64_t x, int64_t height, int64_t width) {
  std::vector<uint32_t> argb(size_t(height * width));
  openslide_read_region(slide_.get(), argb.data(), x, y, level, width, height);
  check();
  std::vector<uint8_t> rgb(argb.size() * 3);
  for (size_t i = 0; i < argb.size(); ++i) {  // premultiplied: what is left of the alpha is background
    const uint32_t p = argb[i], clear = 255 - (p >> 24);
    for (size_t c = 0; c < 3; ++c) rgb[3 * i + c] = uint8_t(((p >> (16 - 8 * c)) & 255) + (clear * background_[c] + 127) / 255);
  }
  return rgb;
}

}  // namespace fovea::reader
