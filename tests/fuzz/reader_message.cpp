#include "fovea/io/opened_image.h"

#include "tests/fuzz/target.h"

// What the parent makes of the line that fovea_reader begins with: a damaged file may have taken that process over.
FOVEA_FUZZ_TARGET(reader_message) {
  using namespace fovea;
  fuzz::accepted([&] {
    const io::ImageInfo info = io::parse_dicom_head("x.dcm", fuzz::text_of(input));
    fuzz::expect(info.geometry.voxels() > 0 && info.channels == 1, "no voxels");
  });
}
