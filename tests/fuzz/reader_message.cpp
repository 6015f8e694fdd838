#include "fovea/io/opened_image.h"

#include "fovea/io/feature_file.h"
#include "fovea/io/slide.h"
#include "tests/fuzz/target.h"

// What the parent makes of the line that fovea_reader begins with, be it of an image, a slide or features: a damaged file may
// have taken that process over.
FOVEA_FUZZ_TARGET(reader_message) {
  using namespace fovea;
  fuzz::accepted([&] {
    const io::ImageInfo info = io::parse_dicom_head("x.dcm", fuzz::text_of(input));
    fuzz::expect(info.geometry.voxels() > 0 && info.channels == 1, "no voxels");
  });
  fuzz::accepted([&] {
    const io::SlideInfo info = io::parse_slide_head("x.svs", fuzz::text_of(input));
    fuzz::expect(!info.levels.empty(), "no levels");
    for (const io::SlideLevel& level : info.levels) fuzz::expect(level.height > 0 && level.width > 0 && level.downsample >= 1, "a level without pixels");
    if (info.um_per_pixel) fuzz::expect(*info.um_per_pixel > 0 && *info.um_per_pixel < 1000, "a pixel of an impossible size");
  });
  fuzz::accepted([&] {
    const io::FeatureHead head = io::parse_feature_head("x.h5", fuzz::text_of(input), 1 << 20);
    fuzz::expect(head.rows >= 0 && head.columns >= 0 && head.coord_rows >= -1, "a negative size");
    fuzz::expect(head.columns == 0 || uint64_t(head.rows) * uint64_t(head.columns) <= (1 << 20) / 4, "more features than were allowed");
  });
}
