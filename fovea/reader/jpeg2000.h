#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace fovea::reader {

/// The samples of a JPEG 2000 code stream (or JP2 file) of one component, row by row.
/// Errors   empty, with `problem` set: damaged, more than one component, or not `rows` x `columns`.
std::vector<int32_t> decode_jpeg2000(std::span<const uint8_t> bytes, uint32_t rows, uint32_t columns, std::string& problem);

}  // namespace fovea::reader
