#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

struct _openslide;

namespace fovea::reader {

/// A slide that OpenSlide opened. Of its properties only the ones named here are read, and never the label or macro
/// pictures: nothing that says whose slide it is leaves the process.
/// Errors   IoError in one line.
class WholeSlide {
 public:
  explicit WholeSlide(const std::filesystem::path& path);

  struct Level {
    int64_t height = 0, width = 0;
    double downsample = 1;
  };
  const std::vector<Level>& levels() const { return levels_; }
  std::string vendor() const;
  /// Mean of both directions; from the file's own resolution tag where the format has no field for it.
  std::optional<double> um_per_pixel() const { return um_per_pixel_; }
  std::optional<double> objective_power() const { return number("openslide.objective-power"); }
  const std::vector<std::string>& notes() const { return notes_; }
  /// RGB bytes [height, width, 3]; `y`, `x` in level-0 pixels.
  std::vector<uint8_t> read(int32_t level, int64_t y, int64_t x, int64_t height, int64_t width);

 private:
  std::optional<double> number(const char* property) const;
  void find_resolution();
  void check() const;

  std::filesystem::path path_;
  std::shared_ptr<_openslide> slide_;
  std::vector<Level> levels_;
  std::optional<double> um_per_pixel_;
  std::array<uint8_t, 3> background_{255, 255, 255};
  std::vector<std::string> notes_;
};

}  // namespace fovea::reader
