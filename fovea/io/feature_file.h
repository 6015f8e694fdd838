#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "fovea/io/safetensors.h"

namespace fovea::io {

/// What a slide's tiles were turned into by an encoder, one row a tile.
struct FeatureFile {
  TensorMap tensors;                      // "features" [N,D]; "coords" i64 [N,2]: x, y of each tile's corner in level-0 pixels
  std::map<std::string, double> numbers;  // attributes of the coordinates: patch_size_level0, patch_size, ...
  std::string encoder;                    // as the file names it, or empty
};

/// .h5 as CLAM (h5_files, patches) and TRIDENT (features_*, patches) write it, read by HDF5 in a process of its own; .pt
/// (a tensor, as in CLAM's pt_files, or a dictionary with `features` and perhaps `coords`) through the restricted reader;
/// .safetensors. Not checked here: whether rows and coordinates fit together.
/// Errors   IoError: another ending, damaged, no features and no coordinates, more than `max_bytes`
FeatureFile read_feature_file(const std::filesystem::path& path, uint64_t max_bytes = uint64_t{8} << 30);

/// What the reader of .h5 says of the bytes that it is about to send.
struct FeatureHead {
  int64_t rows = 0, columns = 0, coord_rows = -1;  // -1: no coordinates
  std::string encoder;
  std::map<std::string, double> numbers;
};
/// Its line, sizes checked. Errors: IoError.
FeatureHead parse_feature_head(const std::filesystem::path& path, std::string_view line, uint64_t max_bytes);

/// Writes features (f32) and coordinates as .h5, whole or not at all. Errors: ArgumentError on other dtypes or shapes.
void write_feature_file(const std::filesystem::path& path, const FeatureFile& file);

}  // namespace fovea::io
