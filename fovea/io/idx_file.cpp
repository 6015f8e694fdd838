#include "fovea/io/idx_file.h"

#include <array>
#include <memory>
#include <string>

#include "fovea/core/error.h"
#include "fovea/io/byte_source.h"

namespace fovea::io {

IdxArray read_idx(const InputFile& file) {
  constexpr int64_t kMostBytes = int64_t{1} << 31;
  constexpr unsigned kUnsignedByte = 0x08, kMostAxes = 4;
  const std::filesystem::path& path = file.path();
  std::array<std::byte, 2> start{};
  const bool gzip = file.read_some_at(0, start) == 2 && start[0] == std::byte{0x1f} && start[1] == std::byte{0x8b};
  std::unique_ptr<ByteSource> source;
  if (gzip)
    source = std::make_unique<GzipSource>(file);
  else
    source = std::make_unique<RawSource>(file);

  // Magic number: two zeros, the element type, the number of axes; then sizes, big-endian.
  std::array<std::byte, 4> four{};
  const auto number = [&](int i) { return std::to_integer<unsigned>(four[i]); };
  source->read_exactly(four, "the magic number");
  if (number(0) != 0 || number(1) != 0)
    throw IoError(path, "begins with bytes " + std::to_string(number(0)) + " " + std::to_string(number(1)) +
                            ", expected 0 0 of an IDX file");
  if (number(2) != kUnsignedByte)
    throw IoError(path, "element type is " + std::to_string(number(2)) + ", expected 8 (unsigned bytes)");
  const unsigned axes = number(3);
  if (axes == 0 || axes > kMostAxes)
    throw IoError(path, "number of axes is " + std::to_string(axes) + ", expected 1 to " + std::to_string(kMostAxes));
  IdxArray array;
  int64_t bytes = 1;
  for (unsigned a = 0; a < axes; ++a) {
    source->read_exactly(four, "the sizes");
    const int64_t size = int64_t{number(0)} << 24 | number(1) << 16 | number(2) << 8 | number(3);
    if (size != 0 && bytes > kMostBytes / size)
      throw IoError(path, "sizes promise more than " + std::to_string(kMostBytes) + " bytes");
    bytes *= size;
    array.shape.push_back(size);
  }
  array.bytes = source->read_block(static_cast<uint64_t>(bytes), "the elements");
  source->drain(0);
  return array;
}

IdxArray read_idx(const std::filesystem::path& path) { return read_idx(InputFile(path)); }

}  // namespace fovea::io
