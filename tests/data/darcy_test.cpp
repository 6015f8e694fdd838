#include "fovea/data/darcy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "fovea/core/error.h"
#include "fovea/data/linear_pde.h"

namespace fovea::data {
namespace {

at::Generator seeded(uint64_t seed) { return at::detail::createCPUGenerator(seed); }

double largest(const torch::Tensor& t) { return t.abs().max().item<double>(); }

// Place along an axis of n points, border included, as [n,n].
std::pair<torch::Tensor, torch::Tensor> places(int64_t n) {
  const auto x = torch::arange(n, torch::kFloat64) / double(n - 1);
  return {x.unsqueeze(1).expand({n, n}), x.unsqueeze(0).expand({n, n})};
}

TEST(Darcy, OfOneMaterialItIsPoissonsEquation) {
  LinearPde pde;
  pde.axes = 2, pde.points = 14;
  const auto system = discretise(pde);
  const auto f = torch::randn({1, 16, 16}, seeded(1), torch::TensorOptions(torch::kFloat64));
  const auto inner = f.slice(1, 1, -1).slice(2, 1, -1).reshape(-1);
  const auto u = solve_darcy(torch::full({1, 16, 16}, 2.0, torch::kFloat64), f);
  EXPECT_LE(largest(u.slice(1, 1, -1).slice(2, 1, -1).reshape(-1) - system.cell * torch::mv(system.green, inner) / 2), 1e-10);
}

TEST(Darcy, ASmoothMediumWithAKnownSolutionIsSolvedToSecondOrder) {
  // u = sin(pi y) sin(2 pi x), a = 1 + y + x^2 / 2.
  const auto error = [](int64_t n) {
    const auto [y, x] = places(n);
    const auto a = 1 + y + x.square() / 2, u = (M_PI * y).sin() * (2 * M_PI * x).sin();
    const auto u_y = M_PI * (M_PI * y).cos() * (2 * M_PI * x).sin(), u_x = 2 * M_PI * (M_PI * y).sin() * (2 * M_PI * x).cos();
    const auto f = 5 * M_PI * M_PI * a * u - u_y - x * u_x;
    return largest(solve_darcy(a.unsqueeze(0), f.unsqueeze(0))[0] - u);
  };
  const double coarse = error(17), fine = error(33);
  EXPECT_LE(coarse, 0.02);
  EXPECT_NEAR(coarse / fine, 4, 0.4);
}

TEST(Darcy, TheFlowBetweenTwoMaterialsFollowsTheirHarmonicMean) {
  const int64_t n = 7, m = n - 2;
  const auto a = draw_darcy_media(1, {n}, seeded(3)), f = torch::ones({1, n, n}, torch::kFloat64);
  auto matrix = torch::zeros({m * m, m * m}, torch::kFloat64);  // the same flows, written out
  const torch::Tensor medium = a[0];
  const auto at = medium.accessor<double, 2>();
  for (int64_t y = 1; y <= m; ++y)
    for (int64_t x = 1; x <= m; ++x)
      for (const auto& [dy, dx] : {std::pair{0, 1}, {0, -1}, {1, 0}, {-1, 0}}) {
        const double one = at[y][x], other = at[y + dy][x + dx], face = 2 * one * other / (one + other) * (n - 1) * (n - 1);
        const int64_t row = (y - 1) * m + x - 1;
        matrix[row][row] += face;
        if (y + dy >= 1 && y + dy <= m && x + dx >= 1 && x + dx <= m) matrix[row][row + dy * m + dx] -= face;
      }
  const auto dense = torch::linalg_solve(matrix, torch::ones({m * m}, torch::kFloat64));
  EXPECT_LE(largest(solve_darcy(a, f)[0].slice(0, 1, -1).slice(1, 1, -1).reshape(-1) - dense), 1e-10);
}

TEST(Darcy, FieldsOfABatchAreSolvedAsIfAlone) {
  auto a = draw_darcy_media(3, {11}, seeded(4));
  a[1].fill_(5);  // converges long before the others
  const auto f = torch::ones({3, 11, 11}, torch::kFloat64), u = solve_darcy(a, f);
  for (int64_t i = 0; i < 3; ++i) EXPECT_LE(largest(solve_darcy(a.slice(0, i, i + 1), f.slice(0, i, i + 1))[0] - u[i]), 1e-11);
}

TEST(Darcy, MediaAreHalfOfEachMaterialInPatchesAndTheSameForASeed) {
  const auto a = draw_darcy_media(200, {31}, seeded(5));
  EXPECT_TRUE(((a == 3) | (a == 12)).all().item<bool>());
  EXPECT_NEAR((a == 12).to(torch::kFloat64).mean().item<double>(), 0.5, 0.03);
  EXPECT_GE((a.slice(2, 1) == a.slice(2, 0, -1)).to(torch::kFloat64).mean().item<double>(), 0.9) << "neighbours mostly alike";
  EXPECT_TRUE(torch::equal(a, draw_darcy_media(200, {31}, seeded(5))));
}

TEST(Darcy, RefusesGridsAndMediaThatHaveNoSolution) {
  EXPECT_THROW(draw_darcy_media(1, {3}, seeded(0)), ArgumentError);
  EXPECT_THROW(draw_darcy_media(1, {9, 0, 1}, seeded(0)), ArgumentError);
  const auto ones = torch::ones({1, 9, 9}, torch::kFloat64);
  EXPECT_THROW(solve_darcy(-ones, ones), ArgumentError);
  EXPECT_THROW(solve_darcy(ones, torch::ones({1, 8, 8}, torch::kFloat64)), ArgumentError);
}

}  // namespace
}  // namespace fovea::data
