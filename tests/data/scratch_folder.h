#pragma once
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "fovea/core/volume.h"
#include "fovea/io/image.h"

namespace fovea::data {

/// A folder of a test's own, removed with everything in it.
struct ScratchFolder {
  std::filesystem::path path;

  ScratchFolder() {
    static int number = 0;
    path = std::filesystem::temp_directory_path() /
           ("fovea_data_" + std::to_string(::getpid()) + "_" + std::to_string(++number));
    std::filesystem::create_directories(path);
  }
  ~ScratchFolder() { std::filesystem::remove_all(path); }
  std::filesystem::path operator/(const std::string& name) const { return path / name; }

  void write_text(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((path / name).parent_path());
    std::ofstream(path / name) << text;
  }
  void write_volume(const std::string& name, const Volume& volume) const {
    std::filesystem::create_directories((path / name).parent_path());
    io::write_image(path / name, volume);
  }
};

/// 6x5x4 (x, y, z) voxels with values 0, 1, 2, ...: an image that is neither constant nor symmetric.
inline Volume ramp_volume(int64_t channels = 1) {
  Geometry g;
  g.shape = {4, 5, 6};
  Volume v = Volume::zeros(g, DType::kF32, channels);
  for (int64_t i = 0; i < v.size(); ++i) v.as<float>()[i] = float(i);
  return v;
}

/// A label on the grid of ramp_volume: value `value` in a 2x2x2 box.
inline Volume box_label(int value = 1) {
  Volume v = Volume::zeros(ramp_volume().geometry, DType::kU8);
  for (int z = 1; z < 3; ++z)
    for (int y = 1; y < 3; ++y)
      for (int x = 1; x < 3; ++x) v.as<uint8_t>()[(z * 5 + y) * 6 + x] = uint8_t(value);
  return v;
}

/// What `f` throws, as text; "" when it throws nothing.
template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace fovea::data
