#include "fovea/reader/jpeg2000.h"

#include <openjpeg.h>

#include <algorithm>
#include <cstring>
#include <memory>

namespace fovea::reader {

namespace {
struct Memory {
  std::span<const uint8_t> bytes;
  size_t at = 0;
};

OPJ_SIZE_T read(void* to, OPJ_SIZE_T asked, void* user) {
  auto& memory = *static_cast<Memory*>(user);
  const size_t n = std::min<size_t>(asked, memory.bytes.size() - memory.at);
  if (n == 0) return OPJ_SIZE_T(-1);
  std::memcpy(to, memory.bytes.data() + memory.at, n);
  memory.at += n;
  return n;
}
OPJ_OFF_T skip(OPJ_OFF_T n, void* user) {
  auto& memory = *static_cast<Memory*>(user);
  if (n < 0 || size_t(n) > memory.bytes.size() - memory.at) return -1;
  memory.at += size_t(n);
  return n;
}
OPJ_BOOL seek(OPJ_OFF_T to, void* user) {
  auto& memory = *static_cast<Memory*>(user);
  if (to < 0 || size_t(to) > memory.bytes.size()) return OPJ_FALSE;
  memory.at = size_t(to);
  return OPJ_TRUE;
}
}  // namespace

std::vector<int32_t> decode_jpeg2000(std::span<const uint8_t> bytes, uint32_t rows, uint32_t columns, std::string& problem) {
  Memory memory{bytes};
  const bool bare = bytes.size() > 4 && bytes[0] == 0xff && bytes[1] == 0x4f;
  const std::unique_ptr<opj_codec_t, void (*)(opj_codec_t*)> codec(opj_create_decompress(bare ? OPJ_CODEC_J2K : OPJ_CODEC_JP2), opj_destroy_codec);
  const std::unique_ptr<opj_stream_t, void (*)(opj_stream_t*)> stream(opj_stream_default_create(OPJ_TRUE), opj_stream_destroy);
  opj_stream_set_user_data(stream.get(), &memory, nullptr);
  opj_stream_set_user_data_length(stream.get(), bytes.size());
  opj_stream_set_read_function(stream.get(), read);
  opj_stream_set_skip_function(stream.get(), skip);
  opj_stream_set_seek_function(stream.get(), seek);
  opj_dparameters_t parameters;
  opj_set_default_decoder_parameters(&parameters);
  opj_image_t* raw = nullptr;
  const bool begun = opj_setup_decoder(codec.get(), &parameters) && opj_decoder_set_strict_mode(codec.get(), OPJ_TRUE) &&
                     opj_read_header(stream.get(), codec.get(), &raw);
  const std::unique_ptr<opj_image_t, void (*)(opj_image_t*)> image(raw, opj_image_destroy);
  if (!begun) return problem = "its JPEG 2000 header is damaged", std::vector<int32_t>();
  // Before decoding, so that a lying header costs nothing.
  if (image->numcomps != 1 || image->comps[0].w != columns || image->comps[0].h != rows)
    return problem = "its JPEG 2000 image has another size than Rows x Columns", std::vector<int32_t>();
  if (!opj_decode(codec.get(), stream.get(), image.get()) || !opj_end_decompress(codec.get(), stream.get()) || !image->comps[0].data)
    return problem = "its JPEG 2000 image is damaged", std::vector<int32_t>();
  const int32_t* data = image->comps[0].data;
  return {data, data + size_t(rows) * columns};
}

}  // namespace fovea::reader
