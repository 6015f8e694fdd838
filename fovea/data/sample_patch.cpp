// Spatial half of augmentation: every output voxel is one look-up in the source volume.
#include <algorithm>
#include <cmath>

#include "fovea/data/augment.h"

namespace fovea::data {

namespace {

using Triple = std::array<double, 3>;
using Matrix = std::array<Triple, 3>;

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix c{};
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j)
      for (int k = 0; k < 3; ++k) c[i][j] += a[i][k] * b[k][j];
  return c;
}

// Rotation by `radians` about array axis `axis`.
Matrix rotation(int axis, double radians) {
  Matrix m{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  const int u = (axis + 1) % 3, v = (axis + 2) % 3;
  m[u][u] = m[v][v] = std::cos(radians);
  m[u][v] = -std::sin(radians), m[v][u] = std::sin(radians);
  return m;
}

// The four cubic B-spline weights at fraction t of a control cell.
std::array<float, 4> spline_weights(double t) {
  const double s = 1 - t;
  return {float(s * s * s / 6), float((4 - 6 * t * t + 3 * t * t * t) / 6), float((4 - 6 * s * s + 3 * s * s * s) / 6),
          float(t * t * t / 6)};
}

// Displacement of whole patch rows; what depends on x alone is computed once.
class Deformation {
 public:
  Deformation(const SpatialTransform& transform, const std::array<int64_t, 3>& patch) : t_(transform) {
    if (t_.control_shape[0] == 0) return;
    for (int a = 0; a < 3; ++a)
      for (int64_t i = 0; i < patch[a]; ++i) {
        const double at = double(i) / t_.control_step_vox[a];
        const int64_t cell = std::min(static_cast<int64_t>(at), t_.control_shape[a] - 4);
        first_[a].push_back(cell), weight_[a].push_back(spline_weights(at - double(cell)));
      }
    mixed_.resize(t_.control_shape[2]);
  }

  bool is_identity() const { return t_.control_shape[0] == 0; }

  /// Adds component `component` of the displacement of row (z, y) to row[0..n).
  void add_row(int component, int64_t z, int64_t y, int64_t n, float* row) {
    const auto& [cz, cy, cx] = t_.control_shape;
    std::fill(mixed_.begin(), mixed_.end(), 0.0f);
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) {
        const float weight = weight_[0][z][i] * weight_[1][y][j];
        const float* from = t_.control.data() + ((component * cz + first_[0][z] + i) * cy + first_[1][y] + j) * cx;
        for (int64_t k = 0; k < cx; ++k) mixed_[k] += weight * from[k];
      }
    for (int64_t x = 0; x < n; ++x) {
      const float* from = mixed_.data() + first_[2][x];
      const auto& w = weight_[2][x];
      row[x] += w[0] * from[0] + w[1] * from[1] + w[2] * from[2] + w[3] * from[3];
    }
  }

 private:
  const SpatialTransform& t_;
  std::array<std::vector<int64_t>, 3> first_;
  std::array<std::vector<std::array<float, 4>>, 3> weight_;
  std::vector<float> mixed_;
};

// Trilinear where some of the eight neighbours lie outside: they count as 0.
float sample_at_border(const float* volume, const std::array<int64_t, 3>& shape, const std::array<float, 3>& at) {
  std::array<int64_t, 3> low;
  std::array<float, 3> fraction;
  for (int a = 0; a < 3; ++a) {
    const float floor = std::floor(at[a]);
    low[a] = static_cast<int64_t>(floor), fraction[a] = at[a] - floor;
  }
  float sum = 0;
  for (int corner = 0; corner < 8; ++corner) {
    int64_t index = 0;
    float weight = 1;
    bool inside = true;
    for (int a = 0; a < 3; ++a) {
      const int high = corner >> a & 1;
      const int64_t i = low[a] + high;
      inside = inside && i >= 0 && i < shape[a];
      index = index * shape[a] + i;
      weight *= high ? fraction[a] : 1 - fraction[a];
    }
    if (inside) sum += weight * volume[index];
  }
  return sum;
}

}  // namespace

SpatialTransform draw_spatial(const AugmentConfig& config, const std::array<int64_t, 3>& patch,
                              const std::array<double, 3>& spacing_mm, const SampleKey& key) {
  SpatialTransform t;
  Rng flip = key.rng(kFlip);
  for (int a = 0; a < 3; ++a) {
    const bool drawn = flip.chance(config.flip_probability);
    t.mirror[a] = config.flip[a] && drawn;
  }

  Matrix linear{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  if (Rng rng = key.rng(kScale); rng.chance(config.scale_probability)) {
    // A factor and its inverse are equally likely: drawn uniformly on either side of 1.
    const auto draw = [&] {
      const auto [low, high] = config.scale;
      if (low < 1 && high > 1) return rng.chance(0.5f) ? rng.uniform(low, 1) : rng.uniform(1, high);
      return rng.uniform(low, high);
    };
    const double same = draw();
    for (int a = 0; a < 3; ++a) linear[a][a] = 1 / (config.scale_each_axis && a > 0 ? double(draw()) : same);
  }
  if (Rng rng = key.rng(kRotation); rng.chance(config.rotation_probability)) {
    for (int a = 0; a < 3; ++a)
      linear = product(rotation(a, double(rng.uniform(-config.rotation_deg[a], config.rotation_deg[a])) * M_PI / 180),
                       linear);
  }
  // In mm: voxels -> mm, change, mm -> voxels.
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) t.matrix[i][j] = i == j ? linear[i][j] : linear[i][j] * spacing_mm[j] / spacing_mm[i];

  if (Rng rng = key.rng(kTranslation); rng.chance(config.translation_probability))
    for (int a = 0; a < 3; ++a)
      t.translation_vox[a] = rng.uniform(-config.translation_vox[a], config.translation_vox[a]);

  if (Rng rng = key.rng(kElastic); rng.chance(config.elastic_probability)) {
    const double finest = std::min({spacing_mm[0], spacing_mm[1], spacing_mm[2]});
    const double rms_mm = rng.uniform(config.elastic_vox[0], config.elastic_vox[1]) * finest;
    for (int a = 0; a < 3; ++a) {
      t.control_step_vox[a] = std::max(1.0, config.elastic_grid_vox * finest / spacing_mm[a]);
      t.control_shape[a] = static_cast<int64_t>(std::ceil(double(patch[a]) / t.control_step_vox[a])) + 4;
    }
    const int64_t n = t.control_shape[0] * t.control_shape[1] * t.control_shape[2];
    t.control.resize(3 * n);
    // A spline of independent coefficients varies less than they do: mean square of its weights, cubed for three axes.
    const double mean_square = 151.0 / 315, loss = std::pow(mean_square, 1.5);
    for (int a = 0; a < 3; ++a)
      for (int64_t i = 0; i < n; ++i) t.control[a * n + i] = float(rng.normal() * rms_mm / spacing_mm[a] / loss);
  }
  return t;
}

template <class T>
void sample_patch(const PatchSource<T>& source, const std::array<int64_t, 3>& begin,
                  const std::array<int64_t, 3>& patch, const SpatialTransform& transform, float* image,
                  int64_t* label) {
  const auto [Z, Y, X] = source.shape;
  const int64_t n = patch[2], patch_voxels = patch[0] * patch[1] * patch[2], volume_voxels = Z * Y * X;
  const std::array<float, 3> last{float(Z - 1), float(Y - 1), float(X - 1)};
  Deformation deformation(transform, patch);
  std::array<std::vector<float>, 3> at;
  for (auto& row : at) row.resize(n);

  for (int64_t z = 0; z < patch[0]; ++z)
    for (int64_t y = 0; y < patch[1]; ++y) {
      // Source coordinates of the row, components Z, Y, X.
      const double middle[3] = {double(patch[0] - 1) / 2, double(patch[1] - 1) / 2, double(patch[2] - 1) / 2};
      const double pz = (double(z) - middle[0]) * (transform.mirror[0] ? -1 : 1),
                   py = (double(y) - middle[1]) * (transform.mirror[1] ? -1 : 1);
      for (int a = 0; a < 3; ++a) {
        const auto& m = transform.matrix[a];
        const double row_begin = double(begin[a]) + middle[a] + transform.translation_vox[a] + m[0] * pz + m[1] * py;
        const double step = transform.mirror[2] ? -m[2] : m[2];
        for (int64_t x = 0; x < n; ++x) at[a][x] = float(row_begin + step * (double(x) - middle[2]));
        if (!deformation.is_identity()) deformation.add_row(a, z, y, n, at[a].data());
      }

      float* out = image + (z * patch[1] + y) * n;
      for (int64_t x = 0; x < n; ++x) {
        const float sz = at[0][x], sy = at[1][x], sx = at[2][x];
        if (!(sz >= 0 && sy >= 0 && sx >= 0 && sz < last[0] && sy < last[1] && sx < last[2])) {
          const bool near = sz > -1 && sy > -1 && sx > -1 && sz < float(Z) && sy < float(Y) && sx < float(X);
          for (int64_t c = 0; c < source.channels; ++c)
            out[c * patch_voxels + x] =
                near ? sample_at_border(source.image + c * volume_voxels, source.shape, {sz, sy, sx}) : 0.0f;
          continue;
        }
        const int64_t iz = static_cast<int32_t>(sz), iy = static_cast<int32_t>(sy), ix = static_cast<int32_t>(sx);
        const float fz = sz - float(iz), fy = sy - float(iy), fx = sx - float(ix);
        const float* v = source.image + (iz * Y + iy) * X + ix;
        for (int64_t c = 0; c < source.channels; ++c, v += volume_voxels) {
          const float* w = v + Y * X;
          const float a = v[0] * (1 - fx) + v[1] * fx, b = v[X] * (1 - fx) + v[X + 1] * fx;
          const float d = w[0] * (1 - fx) + w[1] * fx, e = w[X] * (1 - fx) + w[X + 1] * fx;
          out[c * patch_voxels + x] = (a * (1 - fy) + b * fy) * (1 - fz) + (d * (1 - fy) + e * fy) * fz;
        }
      }

      if (!label || !source.label) continue;
      int64_t* classes = label + (z * patch[1] + y) * n;
      for (int64_t x = 0; x < n; ++x) {
        const float sz = at[0][x] + 0.5f, sy = at[1][x] + 0.5f, sx = at[2][x] + 0.5f;
        const bool inside = sz >= 0 && sy >= 0 && sx >= 0 && sz < float(Z) && sy < float(Y) && sx < float(X);
        classes[x] = inside ? source.label[(int64_t(sz) * Y + int64_t(sy)) * X + int64_t(sx)] : 0;
      }
    }
}

template <class T>
void augmented_patch(const PatchSource<T>& source, const std::array<int64_t, 3>& begin,
                     const std::array<int64_t, 3>& patch, const AugmentConfig& config, const SampleKey& key,
                     float* image, int64_t* label) {
  const SpatialTransform transform = draw_spatial(config, patch, source.spacing_mm, key);
  sample_patch(source, begin, patch, transform, image, label);
  if (label && transform.mirror[2] && !config.flip_x_swaps.empty()) {
    int largest = 0;
    for (const auto& [a, b] : config.flip_x_swaps) largest = std::max({largest, a, b});
    std::vector<int64_t> becomes(largest + 1);
    for (int k = 0; k <= largest; ++k) becomes[k] = k;
    for (const auto& [a, b] : config.flip_x_swaps) std::swap(becomes[a], becomes[b]);
    for (int64_t i = 0; i < patch[0] * patch[1] * patch[2]; ++i)
      if (label[i] <= largest) label[i] = becomes[label[i]];
  }
  augment_intensity(config, key, source.channels, patch, image);
}

template void sample_patch<uint8_t>(const PatchSource<uint8_t>&, const std::array<int64_t, 3>&,
                                    const std::array<int64_t, 3>&, const SpatialTransform&, float*, int64_t*);
template void sample_patch<int16_t>(const PatchSource<int16_t>&, const std::array<int64_t, 3>&,
                                    const std::array<int64_t, 3>&, const SpatialTransform&, float*, int64_t*);
template void augmented_patch<uint8_t>(const PatchSource<uint8_t>&, const std::array<int64_t, 3>&,
                                       const std::array<int64_t, 3>&, const AugmentConfig&, const SampleKey&, float*,
                                       int64_t*);
template void augmented_patch<int16_t>(const PatchSource<int16_t>&, const std::array<int64_t, 3>&,
                                       const std::array<int64_t, 3>&, const AugmentConfig&, const SampleKey&, float*,
                                       int64_t*);

}  // namespace fovea::data
