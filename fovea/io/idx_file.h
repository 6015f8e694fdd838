#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

#include "fovea/io/input_file.h"

namespace fovea::io {

/// Bytes of an array as the MNIST family of data sets stores them, last axis fastest.
struct IdxArray {
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};

/// Reads an IDX file of unsigned bytes, plain or gzip.
/// Errors   IoError: no IDX magic number, another element type than bytes, no axis or more than 4, sizes that overflow or
///          promise more than 2^31 bytes, a file that is shorter or longer than its sizes say, damaged gzip.
/// Cost     one pass; memory grows with the bytes that are there.
/// Source   LeCun, Cortes & Burges, "The MNIST database", section on file formats
IdxArray read_idx(const InputFile& file);
IdxArray read_idx(const std::filesystem::path& path);

}  // namespace fovea::io
