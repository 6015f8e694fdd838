#include "fovea/data/fixed_grid.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "fovea/core/error.h"
#include "fovea/data/resample.h"
#include "fovea/data/voxels.h"

namespace fovea::data {

namespace {
using Shape = std::array<int64_t, 3>;

Volume read_one_channel(const std::filesystem::path& path, const char* what) {
  Volume volume = read_volume(path, what);
  if (volume.channels != 1)
    throw IoError(path, std::string(what) + " has " + std::to_string(volume.channels) + " channels, expected a 3-D file with one");
  if (const auto bad = find_non_finite(volume)) throw IoError(path, std::string(what) + " has " + to_string(*bad));
  return volume;
}

// The cube of `edge_mm` round voxel position `centre` (Z, Y, X) of `g`, which may reach beyond it.
Box cube_round(const Geometry& g, const std::array<double, 3>& centre, double edge_mm) {
  const auto spacing = g.spacing_mm();
  Box box;
  for (int a = 0; a < 3; ++a) {
    box.shape[a] = std::max<int64_t>(1, std::llround(edge_mm / spacing[a]));
    box.begin[a] = std::llround(centre[a] - double(box.shape[a] - 1) / 2);
  }
  return box;
}

// The voxels of `box`; those outside of the array are `outside`.
std::vector<float> padded(const std::vector<float>& voxels, const Shape& shape, const Box& box, float outside) {
  std::vector<float> out(size_t(box.voxels()), outside);
  Shape first, end;
  for (int a = 0; a < 3; ++a) first[a] = std::max<int64_t>(0, -box.begin[a]), end[a] = std::min(box.shape[a], shape[a] - box.begin[a]);
  for (int64_t z = first[0]; z < end[0]; ++z)
    for (int64_t y = first[1]; y < end[1]; ++y)
      for (int64_t x = first[2]; x < end[2]; ++x)
        out[size_t((z * box.shape[1] + y) * box.shape[2] + x)] =
            voxels[size_t(((z + box.begin[0]) * shape[1] + y + box.begin[1]) * shape[2] + x + box.begin[2])];
  return out;
}

// Centre of the voxels that are not 0, Z, Y, X; none without any.
std::optional<std::array<double, 3>> centre_of(const std::vector<float>& mask, const Shape& shape) {
  std::array<double, 3> sum{};
  double n = 0;
  for (size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0) continue;
    const auto at = int64_t(i);
    n += 1, sum[0] += double(at / (shape[2] * shape[1])), sum[1] += double(at / shape[2] % shape[1]), sum[2] += double(at % shape[2]);
  }
  if (n == 0) return {};
  for (double& s : sum) s /= n;
  return sum;
}

void standardise(std::vector<float>& voxels) {
  double sum = 0, squares = 0;
  for (const float v : voxels) sum += v;
  const double mean = sum / double(voxels.size());
  for (const float v : voxels) squares += (v - mean) * (v - mean);
  const double scale = 1 / std::max(std::sqrt(squares / double(voxels.size())), 1e-8);
  for (float& v : voxels) v = float((v - mean) * scale);
}
}  // namespace

void FixedGridConfig::validate() const {
  for (const int64_t n : shape)
    if (n < 1) throw ArgumentError("image: shape has " + std::to_string(n) + ", expected 1 or more");
  if (!(field_mm >= 0)) throw ArgumentError("image: field_mm is " + std::to_string(field_mm) + ", expected 0 or more");
}

FixedGrid read_fixed_grid(const std::filesystem::path& image_file, const std::optional<std::filesystem::path>& mask_file, const FixedGridConfig& config) {
  config.validate();
  const Volume image = read_one_channel(image_file, "image");
  const Orientation o = to_canonical(image.geometry);
  const Geometry canonical = reorient(image.geometry, o);
  const Box whole{{0, 0, 0}, canonical.shape};
  auto voxels = read_channel(image, 0, o, whole);
  std::vector<float> mask;
  if (mask_file) {
    const Volume label = read_one_channel(*mask_file, "mask");
    if (!same_place(image.geometry, label.geometry))
      throw IoError(*mask_file, "its grid differs from the image's: " + to_string(label.geometry) + "; expected " + to_string(image.geometry));
    mask = read_channel(label, 0, o, whole);
  }

  std::array<double, 3> centre;
  for (int a = 0; a < 3; ++a) centre[a] = double(canonical.shape[a] - 1) / 2;
  if (mask_file) {
    const auto found = centre_of(mask, canonical.shape);
    if (!found) throw IoError(*mask_file, "the mask is empty: no voxel differs from 0");
    centre = *found;
  }
  const Box box = config.field_mm > 0 ? cube_round(canonical, centre, config.field_mm) : whole;
  if (config.field_mm > 0) {
    voxels = padded(voxels, canonical.shape, box, *std::min_element(voxels.begin(), voxels.end()));
    if (mask_file) mask = padded(mask, canonical.shape, box, 0);
  }
  standardise(voxels);

  FixedGrid out;
  out.box = box;
  out.grid = resampled_geometry(cropped(canonical, box), config.shape);
  out.voxels = torch::empty({config.shape[0], config.shape[1], config.shape[2]}, torch::kFloat);
  resample_linear(View<const float, 3>::contiguous(voxels.data(), box.shape), View<float, 3>::contiguous(out.voxels.data_ptr<float>(), config.shape), Antialias::kOn);
  if (mask_file) {
    std::vector<uint8_t> inside(mask.size());
    for (size_t i = 0; i < mask.size(); ++i) inside[i] = mask[i] != 0;
    out.mask = torch::empty({config.shape[0], config.shape[1], config.shape[2]}, torch::kUInt8);
    resample_vote<uint8_t>(View<const uint8_t, 3>::contiguous(inside.data(), box.shape), View<uint8_t, 3>::contiguous(out.mask.data_ptr<uint8_t>(), config.shape));
  }
  return out;
}

}  // namespace fovea::data
