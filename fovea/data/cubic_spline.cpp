#include "fovea/data/cubic_spline.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace fovea::data {

namespace {
// Samples of one line to spline coefficients, in place: a causal and an anticausal recursive filter.
void filter_line(double* line, int64_t n, int64_t stride) {
  if (n == 1) return;
  const double pole = std::sqrt(3.0) - 2, gain = (1 - pole) * (1 - 1 / pole);
  const auto at = [&](int64_t i) -> double& { return line[i * stride]; };
  for (int64_t i = 0; i < n; ++i) at(i) *= gain;
  // The mirrored line's geometric sum before the first sample; beyond 1e-10 nothing is added.
  const auto horizon = int64_t(std::ceil(std::log(1e-10) / std::log(std::abs(pole))));
  double first = at(0), power = pole;
  if (horizon < n) {
    for (int64_t i = 1; i < horizon; ++i, power *= pole) first += power * at(i);
  } else {
    const double inverse = 1 / pole;
    double back = std::pow(pole, double(n - 1));
    first = at(0) + back * at(n - 1);
    back *= back * inverse;
    for (int64_t i = 1; i < n - 1; ++i, power *= pole, back *= inverse) first += (power + back) * at(i);
    first /= 1 - power * power;
  }
  at(0) = first;
  for (int64_t i = 1; i < n; ++i) at(i) += pole * at(i - 1);
  at(n - 1) = pole / (pole * pole - 1) * (pole * at(n - 2) + at(n - 1));
  for (int64_t i = n - 2; i >= 0; --i) at(i) = pole * (at(i + 1) - at(i));
}

struct Taps {
  std::array<int64_t, 4> place;
  std::array<double, 4> weight;
};

Taps taps(double index, int64_t n) {
  Taps t;
  const auto first = int64_t(std::floor(index)) - 1;
  const double w = index - double(first + 1);
  t.weight[3] = w * w * w / 6;
  t.weight[0] = 1.0 / 6 + w * (w - 1) / 2 - t.weight[3];
  t.weight[2] = w + t.weight[0] - 2 * t.weight[3];
  t.weight[1] = 1 - t.weight[0] - t.weight[2] - t.weight[3];
  for (int i = 0; i < 4; ++i) {
    int64_t place = first + i;
    if (n == 1) place = 0;
    if (place < 0) place = -place;
    if (place >= n) place = 2 * (n - 1) - place;
    t.place[i] = std::min(std::max<int64_t>(place, 0), n - 1);
  }
  return t;
}
}  // namespace

CubicSpline::CubicSpline(std::vector<double> voxels, const std::array<int64_t, 3>& shape)
    : shape_(shape), coefficient_(std::move(voxels)) {
  const auto [Z, Y, X] = shape;
  for (int64_t z = 0; z < Z; ++z) {
    double* plane = coefficient_.data() + z * Y * X;
    for (int64_t y = 0; y < Y; ++y) filter_line(plane + y * X, X, 1);
    for (int64_t x = 0; x < X; ++x) filter_line(plane + x, Y, X);
  }
  for (int64_t i = 0; i < Y * X; ++i) filter_line(coefficient_.data() + i, Z, Y * X);
}

double CubicSpline::at(const std::array<double, 3>& index) const {
  const Taps z = taps(index[0], shape_[0]), y = taps(index[1], shape_[1]), x = taps(index[2], shape_[2]);
  double sum = 0;
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      const double* row = coefficient_.data() + (z.place[i] * shape_[1] + y.place[j]) * shape_[2];
      double line = 0;
      for (int k = 0; k < 4; ++k) line += x.weight[k] * row[x.place[k]];
      sum += z.weight[i] * y.weight[j] * line;
    }
  return sum;
}

}  // namespace fovea::data
