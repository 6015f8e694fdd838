#include "fovea/io/idx_file.h"

#include "tests/fuzz/target.h"

FOVEA_FUZZ_TARGET(idx) {
  using namespace fovea;
  fuzz::accepted([&] {
    const io::IdxArray array = io::read_idx(io::InputFile("x.idx", input));
    int64_t size = 1;
    for (const int64_t n : array.shape) size *= n;
    fuzz::expect(array.bytes.size() == uint64_t(size), "the bytes do not fit the shape");
  });
}
