#include "fovea/data/cubic_spline.h"

#include <gtest/gtest.h>

#include <cmath>

#include "fovea/core/rng.h"

namespace fovea::data {
namespace {

TEST(CubicSpline, PassesThroughEveryVoxelAlsoOfShortAxes) {
  for (const auto& shape : {std::array<int64_t, 3>{1, 2, 3}, {4, 5, 6}, {3, 30, 40}, {1, 1, 1}}) {
    std::vector<double> voxels(size_t(shape[0] * shape[1] * shape[2]));
    Rng rng(2, 0, 0);
    for (double& v : voxels) v = rng.normal();
    const CubicSpline spline(voxels, shape);
    size_t i = 0;
    for (int64_t z = 0; z < shape[0]; ++z)
      for (int64_t y = 0; y < shape[1]; ++y)
        for (int64_t x = 0; x < shape[2]; ++x)
          EXPECT_NEAR(spline.at({double(z), double(y), double(x)}), voxels[i++], 1e-8);
  }
}

TEST(CubicSpline, ReproducesSmoothFunctionsAwayFromTheBorder) {
  const std::array<int64_t, 3> shape = {24, 26, 28};
  const auto f = [](double z, double y, double x) { return std::sin(0.3 * z + 0.2 * y) + std::cos(0.25 * x); };
  std::vector<double> voxels;
  for (int64_t z = 0; z < shape[0]; ++z)
    for (int64_t y = 0; y < shape[1]; ++y)
      for (int64_t x = 0; x < shape[2]; ++x) voxels.push_back(f(double(z), double(y), double(x)));
  const CubicSpline spline(voxels, shape);
  for (double t = 0; t < 1; t += 0.13)
    EXPECT_NEAR(spline.at({11.2 + t, 12.7 - t, 13.1 + t}), f(11.2 + t, 12.7 - t, 13.1 + t), 1e-4);
}

}  // namespace
}  // namespace fovea::data
