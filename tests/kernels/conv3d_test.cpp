#include "fovea/kernels/conv3d.h"

#include <gtest/gtest.h>

#include "conv3d_problem.h"

namespace fovea::kernels {
namespace {

TEST(Conv3d, ThreeVoxelsMatchNumbersWorkedByHand) {
  // 1, 2, 3 along X, taps 10, 100, 1000: 10 x[v-1] + 100 x[v] + 1000 x[v+1] + 5, zeros outside.
  Conv3dProblem<double> p({.grid = {1, 1, 3}, .in = 1, .out = 1});
  p.x = {1, 2, 3}, p.bias = {5};
  std::fill(p.weight.begin(), p.weight.end(), 7.0);  // taps outside the volume count nothing
  p.weight[12] = 10, p.weight[13] = 100, p.weight[14] = 1000;
  reference::conv3d_forward(p.params());
  EXPECT_EQ(p.out, (std::vector<double>{2105, 3215, 325}));
  EXPECT_NEAR(p.moments[0], (2105 + 3215 + 325) / 3.0, 1e-10);
}

TEST(Conv3d, OneTapMovesTheVolumeByOneVoxelAlongItsAxis) {
  for (int axis = 0; axis < 3; ++axis) {
    Conv3dProblem<double> p({.grid = {3, 4, 5}, .in = 1, .out = 1, .bias = false});
    std::fill(p.weight.begin(), p.weight.end(), 0.0);
    const int step[3] = {9, 3, 1};
    p.weight[13 + step[axis]] = 1;  // out[v] = x[v + 1]
    reference::conv3d_forward(p.params());
    const auto params = p.params();
    EXPECT_EQ(params.out(0, 1, 1, 1, 0), params.x(0, 1 + (axis == 0), 1 + (axis == 1), 1 + (axis == 2), 0));
    EXPECT_EQ(params.out(0, 2, 3, 4, 0), 0.0);
  }
}

TEST(Conv3d, GradientsMatchFiniteDifferencesOnEveryInput) {
  for (const Triple& grid : {Triple{2, 3, 4}, Triple{1, 1, 1}, Triple{1, 4, 2}}) {
    Conv3dProblem<double> p({.B = 2, .grid = grid, .in = 2, .out = 3});
    reference::conv3d_backward(p.backward_params());
    const auto loss = [&] {
      reference::conv3d_forward(p.params());
      double sum = 0;
      for (size_t i = 0; i < p.out.size(); ++i) sum += p.out[i] * p.grad_out[i];
      return sum;
    };
    EXPECT_LT(worst_finite_difference(p.x, p.grad_x, loss), 1e-6);
    EXPECT_LT(worst_finite_difference(p.weight, p.grad_weight, loss), 1e-6);
    EXPECT_LT(worst_finite_difference(p.bias, p.grad_bias, loss), 1e-6);
  }
}

}  // namespace
}  // namespace fovea::kernels
