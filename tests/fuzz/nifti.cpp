#include "fovea/io/image.h"
#include "tests/fuzz/volume.h"

FOVEA_FUZZ_TARGET(nifti) { fovea::fuzz::read_volume(input); }
