// The entry that libFuzzer calls, for the one target that is linked with it.
#include <cstdint>

#include "tests/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fovea::fuzz::targets().front().run(std::as_bytes(std::span(data, size)));
  return 0;
}
