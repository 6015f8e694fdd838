#include "fovea/data/voxels.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "fovea/io/image.h"

namespace fovea::data {

Box Box::united(const Box& other) const {
  if (other.voxels() == 0) return *this;
  if (voxels() == 0) return other;
  Box both;
  for (int a = 0; a < 3; ++a) {
    both.begin[a] = std::min(begin[a], other.begin[a]);
    both.shape[a] = std::max(begin[a] + shape[a], other.begin[a] + other.shape[a]) - both.begin[a];
  }
  return both;
}

std::optional<NonFinite> find_non_finite(const Volume& volume) {
  if (!is_floating(volume.dtype)) return {};
  NonFinite bad;
  for (int64_t c = 0; c < volume.channels; ++c)
    visit_channel(volume, c, [&](auto view) {
      for (int64_t i = 0; i < view.size(); ++i) {
        if (std::isfinite(double(view.data[i]))) continue;
        if (bad.count++ == 0)
          bad.first_channel = c,
          bad.first_xyz = {i % view.shape[2], i / view.shape[2] % view.shape[1], i / (view.shape[2] * view.shape[1])};
      }
    });
  return bad.count ? std::optional(bad) : std::nullopt;
}

std::string to_string(const NonFinite& bad) {
  return std::to_string(bad.count) + " NaN or infinite voxel" + (bad.count == 1 ? "" : "s") +
         ", the first at voxel (x, y, z) = (" + std::to_string(bad.first_xyz[0]) + ", " +
         std::to_string(bad.first_xyz[1]) + ", " + std::to_string(bad.first_xyz[2]) + ")" +
         (bad.first_channel ? " of channel " + std::to_string(bad.first_channel) : "");
}

LabelCounts count_label_values(const Volume& label, const std::filesystem::path& path) {
  if (label.channels != 1)
    throw IoError(path, "label has " + std::to_string(label.channels) + " channels, expected a 3-D file with one");
  if (const auto bad = find_non_finite(label)) throw IoError(path, "label has " + to_string(*bad));
  LabelCounts counts;
  visit_channel(label, 0, [&](auto view) {
    // Runs of equal voxels are counted at once: labels are piecewise constant.
    const int64_t n = view.size();
    for (int64_t i = 0; i < n;) {
      const auto value = view.data[i];
      int64_t end = i + 1;
      while (end < n && view.data[end] == value) ++end;
      if constexpr (std::is_floating_point_v<std::decay_t<decltype(value)>>)
        if (value != std::nearbyint(value) || std::abs(value) > 1e9)
          throw IoError(path, "label value " + std::to_string(value) + " is no integer");
      counts.voxels[static_cast<int64_t>(value)] += end - i;
      i = end;
    }
  });
  return counts;
}

Box non_zero_box(const Volume& volume) {
  Box box;
  for (int64_t c = 0; c < volume.channels; ++c)
    visit_channel(volume, c, [&](auto view) {
      std::array<int64_t, 3> low = view.shape, high{-1, -1, -1};
      for (int64_t z = 0; z < view.shape[0]; ++z)
        for (int64_t y = 0; y < view.shape[1]; ++y) {
          const auto* row = &view(z, y, 0);
          int64_t first = 0, last = view.shape[2] - 1;
          while (first <= last && row[first] == 0) ++first;
          if (first > last) continue;
          while (row[last] == 0) --last;
          low = {std::min(low[0], z), std::min(low[1], y), std::min(low[2], first)};
          high = {std::max(high[0], z), std::max(high[1], y), std::max(high[2], last)};
        }
      if (high[0] >= 0) box = box.united({low, {high[0] - low[0] + 1, high[1] - low[1] + 1, high[2] - low[2] + 1}});
    });
  return box;
}

Box reorient(const Box& box, const std::array<int64_t, 3>& source_shape, const Orientation& o) {
  Box out;
  for (int a = 0; a < 3; ++a) {
    const int s = o.axis[a];
    out.shape[a] = box.shape[s];
    out.begin[a] = o.flip[a] ? source_shape[s] - box.begin[s] - box.shape[s] : box.begin[s];
  }
  return out;
}

bool same_place(const Geometry& a, const Geometry& b) {
  const auto spacing = a.spacing_mm();
  return same_grid(a, b, 1e-3 + 0.01 * std::min({spacing[0], spacing[1], spacing[2]}));
}

Volume read_volume(const std::filesystem::path& path, const char* what) {
  std::error_code failed;
  if (!std::filesystem::exists(path, failed)) throw IoError(path, std::string("missing ") + what + " file");
  std::vector<std::string> remarks;
  io::ReadOptions options;
  options.notes = &remarks;
  return io::read_image(path, options);
}

std::vector<Volume> read_images(const Case& one, int64_t channels) {
  std::vector<Volume> volumes;
  const int64_t files = static_cast<int64_t>(one.images.size());
  if (files != 1 && files != channels)
    throw IoError(one.images.empty() ? std::filesystem::path(one.id) : one.images.front(),
                  "case has " + std::to_string(files) + " image files, expected " + std::to_string(channels) +
                      " (one a channel)");
  for (const auto& path : one.images) {
    volumes.push_back(read_volume(path, "image"));
    const Volume& v = volumes.back();
    const int64_t expected = files == 1 ? channels : 1;
    if (v.channels != expected)
      throw IoError(path, "image has " + std::to_string(v.channels) + " channels, expected " +
                              (expected == 1 ? "a 3-D file with one" : std::to_string(expected)));
    if (!same_place(volumes.front().geometry, v.geometry))
      throw IoError(path, "its grid differs from that of " + one.images.front().filename().string() + ": " +
                              to_string(v.geometry) + "; expected " + to_string(volumes.front().geometry) +
                              "; fovea import --onto puts it there");
  }
  return volumes;
}

Volume foreground_of(const Volume& label) {
  if (label.channels != 1) throw ArgumentError("label has " + std::to_string(label.channels) + " channels, expected one");
  Volume out = Volume::zeros(label.geometry, DType::kU8);
  visit_channel(label, 0, [&](auto view) {
    for (int64_t i = 0; i < view.size(); ++i) out.as<uint8_t>()[size_t(i)] = view.data[i] != 0;
  });
  return out;
}

std::vector<float> read_channel(const Volume& image, int64_t channel, const Orientation& o, const Box& box) {
  std::vector<float> voxels(box.voxels());
  visit_channel(image, channel, [&](auto view) {
    const auto from = crop(reorient(view, o), box);
    float* to = voxels.data();
    for (int64_t z = 0; z < box.shape[0]; ++z)
      for (int64_t y = 0; y < box.shape[1]; ++y) {
        const auto* row = &from(z, y, 0);
        for (int64_t x = 0; x < box.shape[2]; ++x) *to++ = static_cast<float>(row[x * from.stride[2]]);
      }
  });
  return voxels;
}

Geometry cropped(const Geometry& g, const Box& box) {
  Geometry out = g;
  out.shape = box.shape;
  const Point first = g.to_mm({double(box.begin[2]), double(box.begin[1]), double(box.begin[0])});
  for (int r = 0; r < 3; ++r) out.affine[r][3] = first[r];
  return out;
}

}  // namespace fovea::data
