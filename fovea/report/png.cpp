#include "fovea/report/png.h"

#include <png.h>

#include <algorithm>
#include <new>
#include <string_view>

#include "fovea/core/error.h"
#include "fovea/report/save_file.h"

namespace fovea::report {
namespace {

constexpr int64_t kLongestSide = 32767;

/// Owns libpng's two structs, which its error path (a long jump) would otherwise leak.
struct Encoder {
  png_structp png = nullptr;
  png_infop info = nullptr;
  ~Encoder() { png_destroy_write_struct(&png, &info); }
};

void append(png_structp png, png_bytep data, size_t size) {
  auto* out = static_cast<std::vector<std::byte>*>(png_get_io_ptr(png));
  try {
    const auto* bytes = reinterpret_cast<const std::byte*>(data);
    out->insert(out->end(), bytes, bytes + size);
  } catch (const std::bad_alloc&) {
    png_error(png, "out of memory");  // an exception must not cross libpng's C frames
  }
}

/// The calls that may jump: no object with a destructor lives in this frame.
bool encode_rows(Encoder& encoder, const Image& image, PngEffort effort, std::vector<std::byte>& out) {
  if (setjmp(png_jmpbuf(encoder.png)) != 0) return false;
  const int type = image.channels == 1   ? PNG_COLOR_TYPE_GRAY
                   : image.channels == 3 ? PNG_COLOR_TYPE_RGB
                                         : PNG_COLOR_TYPE_RGBA;
  png_set_write_fn(encoder.png, &out, append, nullptr);
  png_set_compression_level(encoder.png, effort == PngEffort::kSmall ? 9 : 1);
  if (effort == PngEffort::kFast) png_set_filter(encoder.png, PNG_FILTER_TYPE_BASE, PNG_FILTER_SUB);
  png_set_IHDR(encoder.png, encoder.info, static_cast<png_uint_32>(image.width), static_cast<png_uint_32>(image.height),
               8, type, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(encoder.png, encoder.info);
  for (int64_t y = 0; y < image.height; ++y) png_write_row(encoder.png, image.at(y, 0));
  png_write_end(encoder.png, nullptr);
  return true;
}

}  // namespace

std::vector<std::byte> encode_png(const Image& image, PngEffort effort) {
  const bool sides =
      image.height >= 1 && image.height <= kLongestSide && image.width >= 1 && image.width <= kLongestSide;
  const bool channels = image.channels == 1 || image.channels == 3 || image.channels == 4;
  if (!sides || !channels || image.pixels.size() != static_cast<size_t>(image.height * image.width * image.channels)) {
    throw ArgumentError("encode_png: image is " + std::to_string(image.height) + " x " + std::to_string(image.width) +
                        " with " + std::to_string(image.channels) + " channels and " +
                        std::to_string(image.pixels.size()) + " bytes, expected sides 1.." +
                        std::to_string(kLongestSide) + ", 1, 3 or 4 channels and height * width * channels bytes");
  }
  Encoder encoder;
  encoder.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  if (encoder.png) encoder.info = png_create_info_struct(encoder.png);
  std::vector<std::byte> out;
  if (!encoder.info || !encode_rows(encoder, image, effort, out)) {
    throw ResourceError("encode_png: out of memory for " + std::to_string(image.height) + " x " +
                        std::to_string(image.width) + " pixels; draw a smaller image");
  }
  return out;
}

void write_png(const std::filesystem::path& path, const Image& image, PngEffort effort) {
  const std::vector<std::byte> bytes = encode_png(image, effort);
  save_file(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

std::string base64(const std::vector<std::byte>& bytes) {
  constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) group = group << 8 | (k < n ? std::to_integer<uint32_t>(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k) out += k <= n ? digits[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::string png_data_uri(const Image& image) { return "data:image/png;base64," + base64(encode_png(image)); }

}  // namespace fovea::report
