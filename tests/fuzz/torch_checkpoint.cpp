#include "fovea/io/torch_pickle.h"

#include "tests/fuzz/target.h"

// The whole zip archive. Its checksums keep most mutations from the pickle: that has a target of its own.
FOVEA_FUZZ_TARGET(torch_checkpoint) {
  using namespace fovea;
  fuzz::accepted([&] {
    uint64_t bytes = 0;
    for (const auto& [name, tensor] : io::read_torch_state_dict(io::InputFile("x.pt", input))) {
      fuzz::expect(tensor.data.size() == uint64_t(tensor.size()) * size_of(tensor.dtype), "the bytes do not fit the shape");
      bytes += tensor.data.size();
    }
    fuzz::expect(bytes <= 4 * input.size(), "more bytes than four times the file");
  });
}
