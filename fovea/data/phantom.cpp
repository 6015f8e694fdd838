#include "fovea/data/phantom.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "fovea/core/error.h"
#include "fovea/data/patch_sampler.h"
#include "fovea/io/image.h"
#include "fovea/io/json_file.h"

namespace fovea::data {

namespace {

struct Ellipsoid {
  std::array<double, 3> centre, radius;  // as a share of the field of view, -1..1 an axis (x, y, z patient directions)

  bool holds(const std::array<double, 3>& p) const {
    double sum = 0;
    for (int a = 0; a < 3; ++a) sum += (p[a] - centre[a]) * (p[a] - centre[a]) / (radius[a] * radius[a]);
    return sum <= 1;
  }
};

// Patient axis (0 right, 1 anterior, 2 superior) and sign of each letter of an axis code.
std::array<std::pair<int, double>, 3> parse_axes(const std::string& axes) {
  constexpr const char* letters = "RLAPSI";
  std::array<std::pair<int, double>, 3> parsed;
  bool seen[3] = {};
  for (int c = 0; c < 3; ++c) {
    const char* found = axes.size() == 3 ? std::strchr(letters, axes[c]) : nullptr;
    if (!found || !*found || seen[(found - letters) / 2])
      throw ArgumentError("phantom: axes is '" + axes + "', expected one letter each of R/L, A/P and S/I, e.g. LPS");
    seen[(found - letters) / 2] = true;
    parsed[c] = {int(found - letters) / 2, (found - letters) % 2 ? -1.0 : 1.0};
  }
  return parsed;
}

Geometry phantom_grid(const PhantomConfig& config, Rng& rng) {
  Geometry g;
  for (int a = 0; a < 3; ++a)
    g.shape[a] = std::max<int64_t>(1, std::llround(double(config.shape[a]) * rng.uniform(0.9f, 1.1f)));
  // A small rotation of the whole frame: about each patient axis in turn.
  double frame[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
  for (int axis = 0; axis < 3; ++axis) {
    const double angle = config.oblique_deg * double(rng.uniform(-1, 1)) * M_PI / 180, c = std::cos(angle),
                 s = std::sin(angle);
    const int u = (axis + 1) % 3, v = (axis + 2) % 3;
    for (auto& column : frame) {
      const double a = column[u], b = column[v];
      column[u] = c * a - s * b, column[v] = s * a + c * b;
    }
  }
  const auto axes = parse_axes(config.axes);
  for (int c = 0; c < 3; ++c)
    for (int r = 0; r < 3; ++r) g.affine[r][c] = frame[axes[c].first][r] * axes[c].second * config.spacing_mm[2 - c];
  const Point far = g.to_mm({double(g.shape[2] - 1), double(g.shape[1] - 1), double(g.shape[0] - 1)});
  for (int r = 0; r < 3; ++r) g.affine[r][3] = -far[r] / 2 + double(rng.uniform(-20, 20));  // centred, then moved
  return g;
}

}  // namespace

void PhantomConfig::validate() const {
  parse_axes(axes);
  for (const int64_t edge : shape)
    if (edge < 4 || edge > 4096)
      throw ArgumentError("phantom: an edge of shape is " + std::to_string(edge) + ", expected 4 to 4096");
  for (const double s : spacing_mm)
    if (!(s > 0 && s < 1000))
      throw ArgumentError("phantom: spacing_mm holds " + std::to_string(s) + ", expected above 0");
  if (structures < 1 || structures > 100)
    throw ArgumentError("phantom: structures is " + std::to_string(structures) + ", expected 1 to 100");
  if (channels < 1 || channels > 16)
    throw ArgumentError("phantom: channels is " + std::to_string(channels) + ", expected 1 to 16");
  if (!(noise >= 0 && bias >= 0 && bias < 1 && oblique_deg >= 0 && oblique_deg <= 40))
    throw ArgumentError("phantom: noise, bias or oblique_deg is out of range (0 or more, 0 to 1, 0 to 40)");
}

Phantom make_phantom(const PhantomConfig& config, uint32_t index) {
  config.validate();
  const auto rng_for = [&](uint32_t part) { return Rng(config.seed, part, index, kPhantom); };
  Rng layout = rng_for(0);
  const Geometry grid = phantom_grid(config, layout);
  const Ellipsoid body{
      {0, 0, 0}, {0.85 + 0.05 * layout.uniform(), 0.85 + 0.05 * layout.uniform(), 0.85 + 0.05 * layout.uniform()}};
  std::vector<Ellipsoid> parts;
  for (int64_t k = 0; k < config.structures; ++k) {
    // On a ring round the centre, always at about the same place: like organs, found by position and intensity.
    const double angle = 2 * M_PI * double(k) / double(config.structures) + 0.2 * layout.normal();
    Ellipsoid part{{0.4 * std::cos(angle), 0.4 * std::sin(angle), 0.1 * layout.normal()}, {}};
    for (double& radius : part.radius) radius = 0.25 + 0.1 * layout.uniform();
    parts.push_back(part);
  }
  double wave[3][2];
  for (auto& [frequency, phase] : wave) frequency = layout.uniform(0.5f, 1.5f), phase = layout.uniform(0, 6.28f);

  Phantom phantom{Volume::zeros(grid, DType::kI16, config.channels), Volume::zeros(grid, DType::kU8)};
  Rng noise = rng_for(1);
  const Orientation o = to_canonical(grid);
  const Orientation back = o.inverse();
  for (int64_t c = 0; c < config.channels; ++c)
    for (int64_t z = 0; z < grid.shape[0]; ++z)
      for (int64_t y = 0; y < grid.shape[1]; ++y)
        for (int64_t x = 0; x < grid.shape[2]; ++x) {
          // Share of the field of view along right, anterior, superior.
          const int64_t i[3] = {z, y, x};
          std::array<double, 3> p;
          for (int a = 0; a < 3; ++a) {
            const double share = grid.shape[a] > 1 ? 2.0 * double(i[a]) / double(grid.shape[a] - 1) - 1 : 0;
            p[2 - back.axis[a]] = back.flip[a] ? -share : share;
          }
          int label = 0;
          for (int64_t k = config.structures; k > 0 && label == 0; --k)
            if (parts[k - 1].holds(p)) label = int(k);
          const double tissue = label ? 100 + config.contrast * (c % 2 ? config.structures + 1 - label : label)
                                : body.holds(p) ? 100
                                                : 0;
          double field = 1;
          for (int a = 0; a < 3; ++a)
            field += config.bias / 3 * std::sin(wave[a][0] * p[a] * 2 + wave[a][1] + double(c));
          const int64_t at = (z * grid.shape[1] + y) * grid.shape[2] + x;
          phantom.image.as<int16_t>()[c * grid.voxels() + at] =
              static_cast<int16_t>(std::lround(tissue * field + config.noise * noise.normal()));
          phantom.label.as<uint8_t>()[at] = static_cast<uint8_t>(label);
        }
  return phantom;
}

std::filesystem::path write_phantom_dataset(const std::filesystem::path& parent, const std::string& name,
                                            const PhantomConfig& config, int64_t cases, int64_t test_cases) {
  namespace fs = std::filesystem;
  const fs::path root = parent / name;
  fs::create_directories(root / "imagesTr"), fs::create_directories(root / "labelsTr"),
      fs::create_directories(root / "imagesTs");
  for (int64_t i = 0; i < cases + test_cases; ++i) {
    const Phantom phantom = make_phantom(config, static_cast<uint32_t>(i));
    char id[32];
    std::snprintf(id, sizeof id, "phantom_%03d", int(i));
    for (int64_t c = 0; c < config.channels; ++c) {
      Volume channel = Volume::zeros(phantom.image.geometry, DType::kI16);
      std::copy_n(phantom.image.as<int16_t>().data() + c * channel.size(), channel.size(),
                  channel.as<int16_t>().data());
      char suffix[16];
      std::snprintf(suffix, sizeof suffix, "_%04d.nii.gz", int(c));
      io::write_image(root / (i < cases ? "imagesTr" : "imagesTs") / (std::string(id) + suffix), channel);
    }
    if (i < cases) io::write_image(root / "labelsTr" / (std::string(id) + ".nii.gz"), phantom.label);
  }
  io::Json description{{"name", name},
                       {"channel_names", io::Json::object()},
                       {"labels", {{"background", 0}}},
                       {"numTraining", cases},
                       {"file_ending", ".nii.gz"}};
  for (int64_t c = 0; c < config.channels; ++c)
    description["channel_names"][std::to_string(c)] = "phantom_" + std::to_string(c);
  for (int64_t k = 1; k <= config.structures; ++k) description["labels"]["structure_" + std::to_string(k)] = k;
  io::write_json(root / "dataset.json", description);
  return root;
}

Volume cut_box(const Volume& volume, const std::array<int64_t, 3>& begin, const std::array<int64_t, 3>& shape) {
  for (int a = 0; a < 3; ++a)
    if (begin[a] < 0 || shape[a] < 1 || begin[a] + shape[a] > volume.geometry.shape[a])
      throw ArgumentError("cut_box: the box leaves the volume along axis " + std::to_string(a) + " (Z, Y, X); " +
                          to_string(volume.geometry));
  Geometry g = volume.geometry;
  g.shape = shape;
  const Point first = volume.geometry.to_mm({double(begin[2]), double(begin[1]), double(begin[0])});
  for (int r = 0; r < 3; ++r) g.affine[r][3] = first[r];
  Volume out = Volume::zeros(g, volume.dtype, volume.channels);
  const size_t element = size_of(volume.dtype);
  std::byte* to = out.data.data();
  for (int64_t c = 0; c < volume.channels; ++c)
    for (int64_t z = 0; z < shape[0]; ++z)
      for (int64_t y = 0; y < shape[1]; ++y, to += shape[2] * element) {
        const int64_t row = ((c * volume.geometry.shape[0] + begin[0] + z) * volume.geometry.shape[1] + begin[1] + y) *
                                volume.geometry.shape[2] +
                            begin[2];
        std::memcpy(to, volume.data.data() + row * element, shape[2] * element);
      }
  return out;
}

}  // namespace fovea::data
