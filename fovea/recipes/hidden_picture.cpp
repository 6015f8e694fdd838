#include "fovea/recipes/hidden_picture.h"

#include <algorithm>

namespace fovea::recipes {

report::Image grey_slice(const torch::Tensor& slice, double low, double high, int64_t zoom, const torch::Tensor& shown) {
  const int64_t height = slice.size(0), width = slice.size(1);
  const auto grey = ((slice - low) / std::max(high - low, 1e-12) * 255).clamp(0, 255).to(torch::kUInt8).contiguous();
  const auto pixel = grey.accessor<uint8_t, 2>();
  const auto patches = shown.defined() ? shown.contiguous() : torch::ones({1, 1}, torch::kBool);
  const auto visible = patches.accessor<bool, 2>();
  const int64_t rows = patches.size(0), columns = patches.size(1);
  auto image = report::Image::filled(zoom * height, zoom * width, {60, 75, 110});
  for (int64_t y = 0; y < zoom * height; ++y)
    for (int64_t x = 0; x < zoom * width; ++x) {
      const int64_t from_y = height - 1 - y / zoom, from_x = x / zoom;
      if (visible[from_y * rows / height][from_x * columns / width]) std::fill_n(image.at(y, x), 3, pixel[from_y][from_x]);
    }
  return image;
}

report::Image hidden_and_rebuilt(const torch::Tensor& volume, const torch::Tensor& shown, const torch::Tensor& rebuilt) {
  const int64_t z = volume.size(0) / 2, layer = z * shown.size(0) / volume.size(0), height = volume.size(1), width = volume.size(2);
  const int64_t zoom = std::max<int64_t>(1, 240 / width), gap = 8;
  const double low = volume.min().item<double>(), high = volume.max().item<double>();
  const auto visible = shown[layer];
  const auto voxels = visible.repeat_interleave(height / visible.size(0), 0).repeat_interleave(width / visible.size(1), 1);
  const report::Image parts[] = {grey_slice(volume[z], low, high, zoom), grey_slice(volume[z], low, high, zoom, visible),
                                 grey_slice(torch::where(voxels, volume[z], rebuilt[z]), low, high, zoom)};
  auto image = report::Image::filled(zoom * height, 3 * zoom * width + 2 * gap, {255, 255, 255});
  for (int64_t part = 0; part < 3; ++part)
    for (int64_t y = 0; y < zoom * height; ++y)
      for (int64_t x = 0; x < zoom * width; ++x) std::copy_n(parts[part].at(y, x), 3, image.at(y, part * (zoom * width + gap) + x));
  return image;
}

}  // namespace fovea::recipes
