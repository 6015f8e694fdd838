#include <zlib.h>

#include <algorithm>

#include "fovea/io/byte_source.h"
#include "tests/fuzz/volume.h"

// A damaged stream as it is; and the input packed well, so that what reads through the stream is reached.
FOVEA_FUZZ_TARGET(gzip) {
  using namespace fovea;
  fuzz::read_volume(input);
  fuzz::accepted([&] {
    const io::InputFile in("x.gz", input);
    io::GzipSource source(in);
    const uint64_t most = source.at_most();
    const uint64_t found = source.drain(uint64_t{1} << 26);
    fuzz::expect(found <= most, "more bytes than a stream of this length can hold");
  });
  std::vector<std::byte> packed(input.size() + input.size() / 100 + 64);
  // A small window and a small table, made once: packing is not what is tested.
  static z_stream stream = [] {
    z_stream made{};
    fuzz::expect(deflateInit2(&made, 1, Z_DEFLATED, 9 + 16, 1, Z_DEFAULT_STRATEGY) == Z_OK, "zlib refuses to start");
    return made;
  }();
  fuzz::expect(deflateReset(&stream) == Z_OK, "zlib does not begin again");
  stream.next_in = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(input.data())), stream.avail_in = unsigned(input.size());
  stream.next_out = reinterpret_cast<unsigned char*>(packed.data()), stream.avail_out = unsigned(packed.size());
  const int state = deflate(&stream, Z_FINISH);
  packed.resize(packed.size() - stream.avail_out);
  fuzz::expect(state == Z_STREAM_END, "the input does not pack");
  const io::InputFile in("x.gz", packed);
  io::GzipSource source(in);
  const std::vector<std::byte> again = source.read_block(input.size(), "bytes");
  fuzz::expect(std::equal(again.begin(), again.end(), input.begin(), input.end()), "unpacked bytes differ");
  fuzz::read_volume(packed);
}
