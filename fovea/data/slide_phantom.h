#pragma once
#include <array>
#include <filesystem>
#include <vector>

#include "fovea/io/slide.h"

namespace fovea::data {

/// A made-up slide: a piece of pink tissue with blue nuclei on white glass, and perhaps tumours, discs where nuclei are
/// crowded, larger and darker, and inflamed discs, where small ones are crowded: as blue, but no tumour. For tests and lessons; whatever is reported on it must say "simulated".
struct SlidePhantomConfig {
  int64_t height = 3072, width = 4096;  // level 0
  double um_per_pixel = 1;
  int64_t tumours = 1;
  double tumour_radius_um = 350;
  double nuclei_per_mm2 = 1600;
  double crowding = 2.0;  // of nuclei in a tumour, times as many
  double growth = 1.5;    // of their radius in a tumour
  int64_t inflamed = 0;   // discs of that radius
  double lymphocytes = 6; // nuclei in them, times as many, at most 0.85 of the radius
  double stain = 0.12;    // deviation of the slide's own amount of each stain
  int64_t levels = 3;     // each a quarter of the one before
  bool tissue = true;     // false: bare glass
  uint64_t seed = 0;
};

struct SlidePhantom {
  std::vector<io::SlideRegion> levels;
  struct Tumour {
    double y = 0, x = 0, radius = 0;  // level-0 pixels
  };
  std::vector<Tumour> tumours, inflamed;

  /// Share of a square of level-0 pixels that tumour covers.
  double tumour_share(int64_t y, int64_t x, int64_t edge) const;
};

/// Slide number `index`: depends on (config, index) alone. Errors: ArgumentError for sides below 512 or above 16384.
SlidePhantom make_slide_phantom(const SlidePhantomConfig& config, uint32_t index);

}  // namespace fovea::data
