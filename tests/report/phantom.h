#pragma once
#include <cmath>
#include <vector>

#include "fovea/core/volume.h"
#include "fovea/report/slices.h"

namespace fovea::report {

/// A head-like picture with two labelled bodies on the patient's right and left, and a blob of weights.
struct Phantom {
  Volume image, labels, weights;
};

/// On a grid of the given spacing (mm, Z Y X) that spans about 150 x 180 x 150 mm, x to the right, y front, z up.
inline Phantom make_phantom(std::array<double, 3> spacing_mm) {
  Geometry g;
  g.shape = {int64_t(150 / spacing_mm[0]), int64_t(180 / spacing_mm[1]), int64_t(150 / spacing_mm[2])};
  g.affine = {{{spacing_mm[2], 0, 0, -75}, {0, spacing_mm[1], 0, -90}, {0, 0, spacing_mm[0], -75}}};
  Phantom p{Volume::zeros(g, DType::kF32), Volume::zeros(g, DType::kU8), Volume::zeros(g, DType::kF32)};
  const auto image = p.image.as<float>(), weights = p.weights.as<float>();
  const auto labels = p.labels.as<uint8_t>();
  const auto inside = [](const Point& mm, const Point& centre, const Point& radius) {
    double d = 0;
    for (int a = 0; a < 3; ++a) d += std::pow((mm[a] - centre[a]) / radius[a], 2);
    return d;
  };
  size_t i = 0;
  for (int64_t z = 0; z < g.shape[0]; ++z) {
    for (int64_t y = 0; y < g.shape[1]; ++y) {
      for (int64_t x = 0; x < g.shape[2]; ++x, ++i) {
        const Point mm = g.to_mm({double(x), double(y), double(z)});
        if (const double d = inside(mm, {0, 0, 0}, {62, 78, 62}); d < 1) {
          image[i] = float(d > 0.88 ? 210 : 90 + 25 * std::cos(mm[0] / 7) * std::cos(mm[1] / 9) * std::cos(mm[2] / 8));
        }
        if (inside(mm, {28, 8, 4}, {13, 26, 15}) < 1) labels[i] = 1, image[i] = 150;
        if (inside(mm, {-28, 8, 4}, {13, 26, 15}) < 1) labels[i] = 2, image[i] = 150;
        weights[i] = float(0.01 * std::exp(-inside(mm, {28, 20, 4}, {18, 18, 18})));
      }
    }
  }
  return p;
}

}  // namespace fovea::report
