#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "fovea/core/dtype.h"

namespace fovea::io {

/// A tensor as it lies in a file: C-contiguous, little-endian.
struct TensorData {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::vector<std::byte> data;

  int64_t size() const {
    int64_t n = 1;
    for (const int64_t s : shape) n *= s;
    return n;
  }
};
using TensorMap = std::map<std::string, TensorData>;

inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;

/// All tensors of a safetensors file, read straight into their own memory. Every byte of the file is accounted for
/// before the first allocation of tensor memory.
/// Errors   IoError: header longer than 100 MB or than the file, not the documented JSON, a name twice, an unknown
///          dtype, shape x dtype overflowing or differing from its byte range, ranges that overlap, leave a hole or do
///          not end with the file, padding other than spaces.
/// Cost     one pass; peak memory = tensors + header.
/// Source   the format's documentation, github.com/huggingface/safetensors
TensorMap read_safetensors(const std::filesystem::path& path, std::map<std::string, std::string>* metadata = nullptr);

/// Writes tensors in the order of the reference implementation (widest dtype first, then by name): every tensor is
/// aligned, equal maps give equal files, and the bytes are those that the reference would write. The file appears whole
/// or not at all.
/// Errors   ArgumentError when a tensor's data does not have the bytes of its shape; ResourceError from the disk.
void write_safetensors(const std::filesystem::path& path, const TensorMap& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace fovea::io
