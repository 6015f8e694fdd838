#include "fovea/io/nrrd_header.h"
#include "tests/fuzz/volume.h"

// The whole file, and the header alone: a header of a detached file names data that cannot be there.
FOVEA_FUZZ_TARGET(nrrd) {
  using namespace fovea;
  fuzz::read_volume(input);
  fuzz::accepted([&] { io::parse_nrrd_header("x.nhdr", fuzz::text_of(input)); });
}
