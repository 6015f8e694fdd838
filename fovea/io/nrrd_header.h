#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/io/image.h"

namespace fovea::io {

/// An NRRD header taken apart and checked, before any voxel is touched.
/// Source   teem.sourceforge.net/nrrd/format.html
struct NrrdHeader {
  std::map<std::string, std::string> fields;      // lower-case name (one spelling of each) -> text
  std::map<std::string, std::string> key_values;  // "key:=value"
  Geometry geometry;
  std::string affine_source;  // "space directions", "spacings", "none"
  int64_t channels = 1;
  bool channels_fastest = false;
  DType dtype = DType::kF32;
  bool big_endian = false;
  bool gzip = false;
  std::string data_file;  // "" when the voxels follow in the same file
  int64_t byte_skip = 0;  // raw data files only; -1: the voxels are the last bytes
  std::vector<std::string> notes;
};

/// Parses a header up to, without, its blank line. Errors: IoError naming line or field.
NrrdHeader parse_nrrd_header(const std::filesystem::path& path, std::string_view text);

}  // namespace fovea::io
