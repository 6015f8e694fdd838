#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/io/reader_process.h"

namespace fovea::io {

/// One resolution of a slide's pyramid; level 0 is the finest.
struct SlideLevel {
  int64_t height = 0, width = 0;
  double downsample = 1;  // level-0 pixels along an edge of one of its pixels
};

/// What a slide's file says of it. Nothing that names a patient or a device is here: only properties on a short list leave
/// the reader, and label and macro pictures are never opened.
struct SlideInfo {
  std::string vendor;  // of the format: "aperio", "generic-tiff", ...
  std::vector<SlideLevel> levels;
  std::optional<double> um_per_pixel;  // at level 0
  std::optional<double> objective_power;
  uint64_t file_bytes = 0;
  std::vector<std::string> notes;

  /// The coarsest level whose pixels are no larger than `downsample` level-0 pixels.
  size_t level_for(double downsample) const;
};

/// What the line says that the slide reader begins with, levels checked. Errors: IoError.
SlideInfo parse_slide_head(const std::filesystem::path& path, std::string_view line);

/// A picture of a part of a slide: [height, width, 3], 8 bits a channel.
struct SlideRegion {
  int64_t height = 0, width = 0;
  std::vector<uint8_t> rgb;

  const uint8_t* at(int64_t y, int64_t x) const { return rgb.data() + (y * width + x) * 3; }
};

/// The region at another size: each new pixel is the mean of the area that it covers. Cost O(pixels of both).
SlideRegion resized(const SlideRegion& region, int64_t height, int64_t width);

/// Whether a file's name is that of a slide: .svs, .tif, .tiff, .ndpi, .mrxs, .scn, .bif, .vms, .vmu, .svslide.
bool is_slide_name(const std::filesystem::path& path);

/// A whole-slide image, decoded by OpenSlide in a process of its own (see reader_process.h) that lives as long as this.
/// Errors   IoError in one line: no slide that OpenSlide knows, damaged, truncated, levels whose sizes do not fit together.
class Slide {
 public:
  /// um_per_pixel: of level 0, where the file does not say it or says it wrongly.
  explicit Slide(const std::filesystem::path& path, std::optional<double> um_per_pixel = {});

  const std::filesystem::path& path() const { return path_; }
  const SlideInfo& info() const { return info_; }
  /// Micrometres of a level-0 pixel. Errors: IoError that names the flag which gives it, where the file does not.
  double um_per_pixel() const;

  /// `height` x `width` pixels of a level, the first one at (y, x) in pixels of level 0. What lies outside the slide, or
  /// was not scanned, has the slide's background colour (white where none is given).
  /// Errors   IoError: no such level (naming those there are), more than 2^26 pixels, bytes that cannot be decoded
  SlideRegion read(size_t level, int64_t y, int64_t x, int64_t height, int64_t width);

 private:
  std::filesystem::path path_;
  std::unique_ptr<ReaderProcess> reader_;
  SlideInfo info_;
};

/// The whole slide in pixels of `downsample` level-0 pixels each (less where that does not divide its sides: nothing moves by
/// more than one pixel), read strip by strip from the level that is fine enough.
/// Errors   IoError: more than 2^26 pixels, and as Slide::read
SlideRegion overview(Slide& slide, double downsample);

}  // namespace fovea::io
