#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace fovea::reader {

/// The features of a slide's tiles in an HDF5 file of CLAM or TRIDENT: datasets `features` [N,D] (or [1,N,D]) and, where
/// they are there, `coords` [N,2] (x, y in level-0 pixels) with their attributes.
struct FeatureTable {
  int64_t rows = 0, columns = 0, coord_rows = -1;  // -1: the file has no coords
  std::vector<float> features;
  std::vector<int64_t> coords;
  std::map<std::string, double> numbers;  // scalar attributes of coords; of "downsample" the first
  std::string encoder;
};

/// Soft and external links, data in other files, virtual datasets and filters from plug-ins are refused: nothing but this
/// file is read.
/// Errors   IoError in one line: no HDF5 file, no dataset `features`, another rank or type, more than max_bytes
FeatureTable read_feature_hdf5(const std::filesystem::path& path, uint64_t max_bytes);

/// The bytes of a file that read_feature_hdf5(), h5py, CLAM and TRIDENT read. Made in memory.
std::vector<uint8_t> encode_feature_hdf5(const FeatureTable& table);

}  // namespace fovea::reader
