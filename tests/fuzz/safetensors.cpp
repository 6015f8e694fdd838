#include "fovea/io/safetensors.h"

#include "tests/fuzz/target.h"

FOVEA_FUZZ_TARGET(safetensors) {
  using namespace fovea;
  static fuzz::MemoryFile file;
  const std::filesystem::path& path = file.holding(input);
  fuzz::accepted([&] {
    std::map<std::string, std::string> metadata;
    uint64_t bytes = 0;
    for (const auto& [name, tensor] : io::read_safetensors(path, &metadata)) {
      fuzz::expect(tensor.data.size() == uint64_t(tensor.size()) * size_of(tensor.dtype), "the bytes do not fit the shape");
      bytes += tensor.data.size();
    }
    fuzz::expect(bytes <= input.size(), "more bytes than the file has");
  });
}
