#pragma once
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "fovea/report/image.h"

namespace fovea::report {

/// Small files, or ten times as fast: for photographs of many megapixels, which deflate hardly shrinks.
enum class PngEffort { kSmall, kFast };

/// The image as the bytes of a PNG file. The same image gives the same bytes: no time stamp, fixed compression level.
/// Errors: ArgumentError when a side is not in 1..32767, channels are not 1, 3 or 4, or pixels has another size.
std::vector<std::byte> encode_png(const Image& image, PngEffort effort = PngEffort::kSmall);

/// Writes encode_png(image) to `path`, whole or not at all. Errors: as encode_png; IoError when it cannot be written.
void write_png(const std::filesystem::path& path, const Image& image, PngEffort effort = PngEffort::kSmall);

/// "data:image/png;base64,...", for HTML and SVG.
std::string png_data_uri(const Image& image);

/// RFC 4648 base64 with padding.
std::string base64(const std::vector<std::byte>& bytes);

}  // namespace fovea::report
