#pragma once
#include <cstdint>
#include <vector>

#include "fovea/io/slide.h"

namespace fovea::data {

/// Where a slide holds tissue.
///   saturation (HSV) of an overview -> median -> threshold -> closing -> small regions out, small holes filled
/// Source   Lu et al. 2021 (CLAM), arXiv:2004.09666, methods: segmentation; Otsu 1979. Their areas are given in tiles of
///          the slide at hand, ours in square millimetres, so that one setting fits every resolution.
struct TissueConfig {
  double um_per_pixel = 8;
  int64_t median = 7;
  int64_t closing = 5;
  int64_t threshold = 0;
  int64_t least_saturation = 8;
  double min_region_mm2 = 0.05;
  double min_hole_mm2 = 0.02;

  template <class V>
  void visit(V& v) {
    v("um_per_pixel", um_per_pixel, "of the overview that the mask is made on");
    v("median", median, "edge of the median filter, in pixels of the overview; odd, 1 = none");
    v("closing", closing, "edge of the closing, likewise");
    v("threshold", threshold, "saturation 1 to 255 from which a pixel is tissue; 0 = Otsu's");
    v("least_saturation", least_saturation, "Otsu's threshold is at least this, so that an empty slide stays empty");
    v("min_region_mm2", min_region_mm2, "smaller pieces of tissue are left out");
    v("min_hole_mm2", min_hole_mm2, "smaller holes are filled");
  }
  /// Errors  ArgumentError naming the field.
  void validate() const;
};

struct TissueMask {
  int64_t height = 0, width = 0;
  double pixel_level0 = 1;        // level-0 pixels along an edge of one of its pixels
  int64_t threshold = 0;          // that was used
  std::vector<uint8_t> inside;    // [height,width] 0 or 1
  int64_t pixels() const;         // inside
};

/// Errors   as Slide::um_per_pixel() and Slide::read(). A slide without tissue gives an empty mask.
TissueMask find_tissue(io::Slide& slide, const TissueConfig& config);
/// The same on a picture. `um_per_pixel`: of its pixels.
TissueMask find_tissue(const io::SlideRegion& picture, double um_per_pixel, const TissueConfig& config);

/// Otsu's threshold of 8-bit values: the t that maximises the variance between values < t and values >= t; 0 for values
/// that are all equal. Ties: the middle one.
int64_t otsu_threshold(const std::vector<uint8_t>& values);

}  // namespace fovea::data
