// Intensity half of augmentation: plain loops over one channel of a patch at a time.
#include <algorithm>
#include <cmath>

#include "fovea/data/augment.h"
#include "fovea/data/resample.h"

namespace fovea::data {

namespace {

struct Moments {
  double mean = 0, deviation = 0;
  float minimum = 0, maximum = 0;
};

Moments moments(const float* v, int64_t n) {
  Moments m{0, 0, v[0], v[0]};
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < n; ++i)
    sum += v[i], m.minimum = std::min(m.minimum, v[i]), m.maximum = std::max(m.maximum, v[i]);
  m.mean = sum / double(n);
  for (int64_t i = 0; i < n; ++i) squares += (v[i] - m.mean) * (v[i] - m.mean);
  m.deviation = std::sqrt(squares / double(n));
  return m;
}

// Weights of a Gaussian cut at 3 sigma, normalised; the border value is repeated.
std::vector<float> gaussian(float sigma) {
  const int radius = std::max(1, int(std::ceil(3 * sigma)));
  std::vector<double> w(2 * radius + 1);
  double sum = 0;
  for (int i = -radius; i <= radius; ++i) sum += w[i + radius] = std::exp(-0.5 * i * i / (double(sigma) * sigma));
  std::vector<float> weights;
  for (const double one : w) weights.push_back(float(one / sum));
  return weights;
}

// Along an axis whose neighbours are `step` floats apart, for `n` positions; `width` floats beside each other at a
// time.
void blur_axis(float* v, int64_t n, int64_t step, int64_t width, const std::vector<float>& weights,
               std::vector<float>& scratch) {
  const int64_t radius = static_cast<int64_t>(weights.size()) / 2;
  scratch.assign(n * width, 0.0f);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t t = -radius; t <= radius; ++t) {
      const float* from = v + std::clamp<int64_t>(i + t, 0, n - 1) * step;
      float* to = scratch.data() + i * width;
      for (int64_t k = 0; k < width; ++k) to[k] += weights[t + radius] * from[k];
    }
  for (int64_t i = 0; i < n; ++i) std::copy_n(scratch.data() + i * width, width, v + i * step);
}

void blur_row(float* row, int64_t n, const std::vector<float>& weights, std::vector<float>& scratch) {
  const int64_t radius = static_cast<int64_t>(weights.size()) / 2;
  scratch.resize(n + 2 * radius);
  std::fill_n(scratch.begin(), radius, row[0]);
  std::copy_n(row, n, scratch.begin() + radius);
  std::fill_n(scratch.begin() + radius + n, radius, row[n - 1]);
  for (int64_t x = 0; x < n; ++x) row[x] = 0;
  for (int64_t t = 0; t <= 2 * radius; ++t)
    for (int64_t x = 0; x < n; ++x) row[x] += weights[t] * scratch[x + t];
}

void blur(const std::array<int64_t, 3>& patch, float sigma, float* v) {
  if (!(sigma > 0.05f)) return;
  const auto weights = gaussian(sigma);
  const auto [Z, Y, X] = patch;
  std::vector<float> scratch;
  blur_axis(v, Z, Y * X, Y * X, weights, scratch);
  for (int64_t z = 0; z < Z; ++z) blur_axis(v + z * Y * X, Y, X, X, weights, scratch);
  for (int64_t row = 0; row < Z * Y; ++row) blur_row(v + row * X, X, weights, scratch);
}

void lower_resolution(const std::array<int64_t, 3>& patch, float zoom, float* v) {
  std::array<int64_t, 3> small;
  for (int a = 0; a < 3; ++a) small[a] = std::max<int64_t>(1, std::lround(float(patch[a]) * zoom));
  if (small == patch) return;
  std::vector<float> coarse(small[0] * small[1] * small[2]);
  const auto whole = View<float, 3>::contiguous(v, patch), few = View<float, 3>::contiguous(coarse.data(), small);
  resample_nearest<float>(whole, few);
  resample_linear(few, whole, Antialias::kOff);
}

// v -> range * ((v - min) / range)^gamma + min, then the old mean and deviation.
void apply_gamma(float exponent, bool inverted, int64_t n, float* v) {
  const float sign = inverted ? -1.0f : 1.0f;
  const Moments before = moments(v, n);
  const float low = inverted ? -before.maximum : before.minimum, range = before.maximum - before.minimum;
  if (!(range > 1e-7f)) return;
  for (int64_t i = 0; i < n; ++i) v[i] = std::pow(std::max(0.0f, (sign * v[i] - low) / range), exponent);
  const Moments after = moments(v, n);
  const float scale = float(before.deviation / std::max(after.deviation, 1e-8)), mean = float(after.mean);
  for (int64_t i = 0; i < n; ++i) v[i] = sign * (v[i] - mean) * scale + float(before.mean);
}

}  // namespace

void augment_intensity(const AugmentConfig& config, const SampleKey& key, int64_t channels,
                       const std::array<int64_t, 3>& patch, float* image) {
  const int64_t n = patch[0] * patch[1] * patch[2];
  const auto each_channel = [&](uint32_t stream, float probability, const std::array<float, 2>& range,
                                const auto& change) {
    Rng rng = key.rng(stream);
    if (!rng.chance(probability)) return;
    for (int64_t c = 0; c < channels; ++c) {
      const float strength = rng.uniform(range[0], range[1]);
      change(image + c * n, strength, rng);
    }
  };
  each_channel(kNoise, config.noise_probability, config.noise_deviation, [&](float* v, float deviation, Rng& rng) {
    for (int64_t i = 0; i < n; ++i) v[i] += deviation * rng.normal();
  });
  each_channel(kBlur, config.blur_probability, config.blur_sigma_vox,
               [&](float* v, float sigma, Rng&) { blur(patch, sigma, v); });
  each_channel(kBrightness, config.brightness_probability, config.brightness, [&](float* v, float factor, Rng&) {
    for (int64_t i = 0; i < n; ++i) v[i] *= factor;
  });
  each_channel(kContrast, config.contrast_probability, config.contrast, [&](float* v, float factor, Rng&) {
    const Moments m = moments(v, n);
    for (int64_t i = 0; i < n; ++i)
      v[i] = std::clamp((v[i] - float(m.mean)) * factor + float(m.mean), m.minimum, m.maximum);
  });
  each_channel(kLowResolution, config.low_resolution_probability, config.low_resolution_zoom,
               [&](float* v, float zoom, Rng&) { lower_resolution(patch, zoom, v); });
  each_channel(kGammaInverted, config.gamma_inverted_probability, config.gamma,
               [&](float* v, float exponent, Rng&) { apply_gamma(exponent, /*inverted=*/true, n, v); });
  each_channel(kGamma, config.gamma_probability, config.gamma,
               [&](float* v, float exponent, Rng&) { apply_gamma(exponent, /*inverted=*/false, n, v); });
}

}  // namespace fovea::data
