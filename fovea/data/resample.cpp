#include "fovea/data/resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "fovea/core/error.h"

namespace fovea::data {

namespace {

// out[x] = sum_t weight[x, t] * row[first[x] + t]
void gather_row(const AxisWeights& w, const float* row, float* out, int64_t step) {
  const int64_t n = static_cast<int64_t>(w.first.size());
  if (w.taps == 2) {
    for (int64_t x = 0; x < n; ++x)
      out[x * step] = w.weight[2 * x] * row[w.first[x]] + w.weight[2 * x + 1] * row[w.first[x] + 1];
    return;
  }
  for (int64_t x = 0; x < n; ++x) {
    float sum = 0;
    for (int64_t t = 0; t < w.taps; ++t) sum += w.weight[x * w.taps + t] * row[w.first[x] + t];
    out[x * step] = sum;
  }
}

// to[i] (+)= weight * from[i * step]
void add_row(float weight, const float* from, int64_t step, int64_t n, bool begin, float* to) {
  if (begin) {
    for (int64_t i = 0; i < n; ++i) to[i] = weight * from[i * step];
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] += weight * from[i * step];
  }
}

// One output plane from an input plane [Y, X] that is already combined along Z.
void resample_plane(const float* plane, int64_t x_size, const AxisWeights& wy, const AxisWeights& wx,
                    const View<float, 2>& out, float* row) {
  for (int64_t y = 0; y < out.shape[0]; ++y) {
    for (int64_t t = 0; t < wy.taps; ++t)
      add_row(wy.weight[y * wy.taps + t], plane + (wy.first[y] + t) * x_size, 1, x_size, t == 0, row);
    gather_row(wx, row, &out(y, 0), out.stride[1]);
  }
}

template <class T>
bool is_uniform(const View<const T, 3>& v) {
  for (int64_t z = 0; z < v.shape[0]; ++z)
    for (int64_t y = 0; y < v.shape[1]; ++y) {
      const T* row = v.data + z * v.stride[0] + y * v.stride[1];
      for (int64_t x = 0; x < v.shape[2]; ++x)
        if (row[x * v.stride[2]] != *v.data) return false;
    }
  return true;
}

template <class T>
void copy_view(const View<const T, 3>& in, const View<T, 3>& out) {
  for (int64_t z = 0; z < in.shape[0]; ++z)
    for (int64_t y = 0; y < in.shape[1]; ++y)
      for (int64_t x = 0; x < in.shape[2]; ++x) out(z, y, x) = in(z, y, x);
}

}  // namespace

int64_t resampled_size(int64_t size, double spacing_mm, double wanted_mm) {
  return std::max<int64_t>(1, std::llround(double(size) * spacing_mm / wanted_mm));
}

std::array<int64_t, 3> resampled_shape(const Geometry& g, const std::array<double, 3>& wanted_mm) {
  const auto spacing = g.spacing_mm();
  std::array<int64_t, 3> shape;
  for (int a = 0; a < 3; ++a) shape[a] = resampled_size(g.shape[a], spacing[a], wanted_mm[a]);
  return shape;
}

Geometry resampled_geometry(const Geometry& g, const std::array<int64_t, 3>& shape) {
  Geometry out = g;
  out.shape = shape;
  for (int a = 0; a < 3; ++a) {
    if (shape[a] == g.shape[a]) continue;
    const double ratio = double(g.shape[a]) / double(shape[a]);
    for (int r = 0; r < 3; ++r) {
      const double step = g.affine[r][2 - a];
      out.affine[r][2 - a] = step * ratio;
      out.affine[r][3] += step * (ratio - 1) / 2;  // the first centre moves so that the outer border stays
    }
  }
  return out;
}

AxisWeights linear_weights(int64_t n_in, int64_t n_out, Antialias antialias) {
  AxisWeights w;
  const double ratio = double(n_in) / double(n_out);
  const bool widened = antialias == Antialias::kOn && ratio > 1;
  w.taps = n_in == n_out ? 1 : std::min<int64_t>(n_in, widened ? 2 * int64_t(std::ceil(ratio)) + 1 : 2);
  w.first.resize(n_out), w.weight.assign(n_out * w.taps, 0.0f);
  for (int64_t i = 0; i < n_out; ++i) {
    const double centre = (double(i) + 0.5) * ratio;  // in voxel borders: voxel j covers [j, j + 1]
    if (!widened) {
      const double at = std::clamp(centre - 0.5, 0.0, double(n_in - 1));
      w.first[i] = std::min(static_cast<int64_t>(at), n_in - w.taps);
      const double fraction = at - double(w.first[i]);
      w.weight[i * w.taps] = w.taps == 1 ? 1.0f : float(1 - fraction);
      if (w.taps == 2) w.weight[i * 2 + 1] = float(fraction);
      continue;
    }
    const int64_t low = std::max<int64_t>(0, int64_t(centre - ratio + 0.5)),
                  high = std::min(n_in, int64_t(centre + ratio + 0.5));
    w.first[i] = std::min(low, n_in - w.taps);
    double sum = 0;
    for (int64_t j = low; j < high; ++j) sum += std::max(0.0, 1 - std::abs(double(j) + 0.5 - centre) / ratio);
    for (int64_t j = low; j < high; ++j)
      w.weight[i * w.taps + j - w.first[i]] =
          float(std::max(0.0, 1 - std::abs(double(j) + 0.5 - centre) / ratio) / sum);
  }
  return w;
}

void resample_linear(const View<const float, 3>& in, const View<float, 3>& out, Antialias antialias,
                     const ParallelFor& parallel) {
  if (in.size() == 0 || out.size() == 0) throw ArgumentError("resample_linear: an empty grid");
  const AxisWeights wz = linear_weights(in.shape[0], out.shape[0], antialias),
                    wy = linear_weights(in.shape[1], out.shape[1], antialias),
                    wx = linear_weights(in.shape[2], out.shape[2], antialias);
  parallel(out.shape[0], 1, [&](int64_t begin, int64_t end) {
    std::vector<float> plane(in.shape[1] * in.shape[2]), row(in.shape[2]);
    for (int64_t z = begin; z < end; ++z) {
      for (int64_t t = 0; t < wz.taps; ++t)
        for (int64_t y = 0; y < in.shape[1]; ++y)
          add_row(wz.weight[z * wz.taps + t], &in(wz.first[z] + t, y, 0), in.stride[2], in.shape[2], t == 0,
                  plane.data() + y * in.shape[2]);
      resample_plane(plane.data(), in.shape[2], wy, wx, out[z], row.data());
    }
  });
}

template <class T>
void resample_nearest(const View<const T, 3>& in, const View<T, 3>& out, const ParallelFor& parallel) {
  if (in.size() == 0 || out.size() == 0) throw ArgumentError("resample_nearest: an empty grid");
  if (in.shape == out.shape) return copy_view(in, out);
  std::array<std::vector<int64_t>, 3> from;
  // Integer arithmetic: floor((2 i + 1) n_in / (2 n_out)) has no rounding to depend on.
  for (int a = 0; a < 3; ++a)
    for (int64_t i = 0; i < out.shape[a]; ++i) from[a].push_back((2 * i + 1) * in.shape[a] / (2 * out.shape[a]));
  parallel(out.shape[0], 1, [&](int64_t begin, int64_t end) {
    for (int64_t z = begin; z < end; ++z)
      for (int64_t y = 0; y < out.shape[1]; ++y) {
        const T* row = &in(from[0][z], from[1][y], 0);
        for (int64_t x = 0; x < out.shape[2]; ++x) out(z, y, x) = row[from[2][x] * in.stride[2]];
      }
  });
}

template <class T>
void resample_vote(const View<const T, 3>& in, const View<T, 3>& out, const ParallelFor& parallel) {
  if (in.size() == 0 || out.size() == 0) throw ArgumentError("resample_vote: an empty grid");
  if (in.shape == out.shape) return copy_view(in, out);
  std::array<AxisWeights, 3> w;
  for (int a = 0; a < 3; ++a) w[a] = linear_weights(in.shape[a], out.shape[a], Antialias::kOn);
  T largest = 0;
  for (int64_t z = 0; z < in.shape[0]; ++z)
    for (int64_t y = 0; y < in.shape[1]; ++y)
      for (int64_t x = 0; x < in.shape[2]; ++x) largest = std::max(largest, in(z, y, x));
  parallel(out.shape[0], 1, [&](int64_t begin, int64_t end) {
    std::vector<float> votes(size_t(largest) + 1, 0.0f);
    std::vector<T> seen;
    for (int64_t z = begin; z < end; ++z)
      for (int64_t y = 0; y < out.shape[1]; ++y)
        for (int64_t x = 0; x < out.shape[2]; ++x) {
          // Most windows lie inside one structure: then there is nothing to vote on.
          const View<const T, 3> window{
              &in(w[0].first[z], w[1].first[y], w[2].first[x]), {w[0].taps, w[1].taps, w[2].taps}, in.stride};
          if (is_uniform(window)) {
            out(z, y, x) = *window.data;
            continue;
          }
          seen.clear();
          for (int64_t tz = 0; tz < w[0].taps; ++tz)
            for (int64_t ty = 0; ty < w[1].taps; ++ty) {
              const float wzy = w[0].weight[z * w[0].taps + tz] * w[1].weight[y * w[1].taps + ty];
              if (wzy == 0) continue;
              const T* row = &in(w[0].first[z] + tz, w[1].first[y] + ty, w[2].first[x]);
              for (int64_t tx = 0; tx < w[2].taps; ++tx) {
                const T value = row[tx * in.stride[2]];
                const float weight = wzy * w[2].weight[x * w[2].taps + tx];
                if (weight == 0) continue;
                if (votes[value] == 0) seen.push_back(value);
                votes[value] += weight;
              }
            }
          T best = seen.front();
          for (const T value : seen)
            if (votes[value] > votes[best] || (votes[value] == votes[best] && value < best)) best = value;
          for (const T value : seen) votes[value] = 0;
          out(z, y, x) = best;
        }
  });
}

template void resample_nearest<uint8_t>(const View<const uint8_t, 3>&, const View<uint8_t, 3>&, const ParallelFor&);
template void resample_nearest<int16_t>(const View<const int16_t, 3>&, const View<int16_t, 3>&, const ParallelFor&);
template void resample_nearest<int32_t>(const View<const int32_t, 3>&, const View<int32_t, 3>&, const ParallelFor&);
template void resample_nearest<float>(const View<const float, 3>&, const View<float, 3>&, const ParallelFor&);
template void resample_vote<uint8_t>(const View<const uint8_t, 3>&, const View<uint8_t, 3>&, const ParallelFor&);
template void resample_vote<int16_t>(const View<const int16_t, 3>&, const View<int16_t, 3>&, const ParallelFor&);

ResampleArgmax::ResampleArgmax(int64_t classes, const std::array<int64_t, 3>& score_shape,
                               const View<uint8_t, 3>& labels, ParallelFor parallel)
    : classes_(classes), shape_(score_shape), labels_(labels), parallel_(std::move(parallel)) {
  if (classes < 1 || classes > 256)
    throw ArgumentError("resample_argmax: " + std::to_string(classes) + " classes, expected 1 to 256");
  if (score_shape[0] < 1 || score_shape[1] < 1 || score_shape[2] < 1 || labels.size() == 0)
    throw ArgumentError("resample_argmax: an empty grid");
  z_ = linear_weights(shape_[0], labels.shape[0], Antialias::kOff);
  y_ = linear_weights(shape_[1], labels.shape[1], Antialias::kOff);
  x_ = linear_weights(shape_[2], labels.shape[2], Antialias::kOff);
}

void ResampleArgmax::plane(int64_t out_z, const View<const float, 4>& scores) {
  const int64_t y_size = shape_[1], x_size = shape_[2],
                before = received_;  // scores holds planes before, before + 1, ...
  std::vector<float> mixed(y_size * x_size), row(x_size), out(labels_.shape[1] * labels_.shape[2]), best(out.size());
  const View<float, 2> resampled = View<float, 2>::contiguous(out.data(), {labels_.shape[1], labels_.shape[2]});
  for (int64_t k = 0; k < classes_; ++k) {
    for (int64_t t = 0; t < z_.taps; ++t) {
      const int64_t z = z_.first[out_z] + t;
      const float weight = z_.weight[out_z * z_.taps + t];
      for (int64_t y = 0; y < y_size; ++y) {
        const float* from = z >= before ? &scores(k, z - before, y, 0) : last_plane_.data() + (k * y_size + y) * x_size;
        add_row(weight, from, 1, x_size, t == 0, mixed.data() + y * x_size);
      }
    }
    resample_plane(mixed.data(), x_size, y_, x_, resampled, row.data());
    for (int64_t y = 0; y < labels_.shape[1]; ++y)
      for (int64_t x = 0; x < labels_.shape[2]; ++x) {
        const int64_t i = y * labels_.shape[2] + x;
        if (k == 0 || out[i] > best[i]) best[i] = out[i], labels_(out_z, y, x) = static_cast<uint8_t>(k);
      }
  }
}

void ResampleArgmax::push(const View<const float, 4>& scores) {
  if (scores.shape[0] != classes_ || scores.shape[2] != shape_[1] || scores.shape[3] != shape_[2] ||
      scores.stride[3] != 1 || received_ + scores.shape[1] > shape_[0])
    throw ArgumentError("resample_argmax: a slab of " + std::to_string(scores.shape[0]) + "x" +
                        std::to_string(scores.shape[1]) + "x" + std::to_string(scores.shape[2]) + "x" +
                        std::to_string(scores.shape[3]) + " scores, expected " + std::to_string(classes_) +
                        "x(at most " + std::to_string(shape_[0] - received_) + ")x" + std::to_string(shape_[1]) + "x" +
                        std::to_string(shape_[2]) + " with contiguous rows");
  if (scores.shape[1] == 0) return;
  const int64_t available = received_ + scores.shape[1];
  int64_t ready = done_;
  while (ready < labels_.shape[0] && z_.first[ready] + z_.taps <= available) ++ready;
  const int64_t first = done_;
  parallel_(ready - first, 1, [&](int64_t begin, int64_t end) {
    for (int64_t z = begin; z < end; ++z) plane(first + z, scores);
  });
  last_plane_.resize(classes_ * shape_[1] * shape_[2]);
  for (int64_t k = 0; k < classes_; ++k)
    for (int64_t y = 0; y < shape_[1]; ++y)
      std::copy_n(&scores(k, scores.shape[1] - 1, y, 0), shape_[2],
                  last_plane_.data() + (k * shape_[1] + y) * shape_[2]);
  received_ = available, done_ = ready;
}

void ResampleArgmax::finish() const {
  if (received_ != shape_[0])
    throw ArgumentError("resample_argmax: " + std::to_string(received_) + " of " + std::to_string(shape_[0]) +
                        " score planes arrived");
}

}  // namespace fovea::data
