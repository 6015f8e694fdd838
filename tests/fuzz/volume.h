#pragma once
#include <cmath>
#include <cstdint>

#include "fovea/io/opened_image.h"
#include "tests/fuzz/target.h"

namespace fovea::fuzz {

/// `input` as an image file: what is read must hold as many bytes as its shape says, on a grid of finite numbers, and
/// inspect() may not refuse what read_image() takes.
inline void read_volume(Bytes input) {
  if (input.size() >= 132 && text_of(input).substr(128, 4) == "DICM") return;  // another process decodes it
  const io::InputFile file("/nowhere/scan", input);  // no folder: a detached header finds nothing
  std::vector<std::string> notes;
  io::ReadOptions options;
  options.max_decoded_bytes = uint64_t{64} << 20;
  options.notes = &notes;
  Volume volume;
  const bool read = accepted([&] { volume = io::read_image(file, options); });
  io::ImageInfo info;
  const bool inspected = accepted([&] { info = io::inspect(file, options); });
  if (!read) return;
  expect(inspected, "inspect() refuses what read_image() takes");
  expect(volume.data.size() == uint64_t(volume.size()) * size_of(volume.dtype), "the bytes do not fit the shape");
  expect(volume.geometry.shape == info.geometry.shape && volume.channels == info.channels && volume.dtype == info.dtype, "inspect() says something else");
  for (const auto& row : volume.geometry.affine)
    for (const double value : row) expect(std::isfinite(value), "the affine is not finite");
}

}  // namespace fovea::fuzz
