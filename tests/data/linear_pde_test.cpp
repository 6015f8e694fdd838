#include "fovea/data/linear_pde.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "fovea/core/error.h"
#include "fovea/data/burgers.h"

namespace fovea::data {
namespace {

using testing::HasSubstr;

std::string refusal(const LinearPde& pde) {
  try {
    discretise(pde);
  } catch (const ArgumentError& error) {
    return error.what();
  }
  return "";
}

torch::Tensor solve(const LinearSystem& system, const torch::Tensor& f) { return system.cell * torch::mv(system.green, f); }
double largest(const torch::Tensor& t) { return t.abs().max().item<double>(); }

TEST(LinearPde, TheInverseOfTheDifferencesIsGreensFunctionAtTheNodes) {
  const auto system = discretise({});
  const auto x = system.coordinates.squeeze(1);
  EXPECT_LE(largest(system.green - poisson_green(x, x)), 1e-13);
}

// Solutions known in closed form, on two grids: the error falls with the square of the spacing.
TEST(LinearPde, SolvesProblemsWithKnownSolutionsToSecondOrder) {
  struct Case {
    LinearPde pde;
    std::function<torch::Tensor(const torch::Tensor&)> u, f;
  };
  const double k = 5, b = 10;
  const std::vector<Case> cases = {
      {{LinearEquation::kPoisson, Boundary::kDirichlet}, [](auto& x) { return torch::sin(M_PI * x); }, [](auto& x) { return M_PI * M_PI * torch::sin(M_PI * x); }},
      {{LinearEquation::kPoisson, Boundary::kNeumann}, [](auto& x) { return torch::cos(M_PI * x); }, [](auto& x) { return M_PI * M_PI * torch::cos(M_PI * x); }},
      {{LinearEquation::kPoisson, Boundary::kPeriodic}, [](auto& x) { return torch::sin(2 * M_PI * x); }, [](auto& x) { return 4 * M_PI * M_PI * torch::sin(2 * M_PI * x); }},
      // u = x + 1 - x^2: u' = u at 0 (1 = 1), u' = -u at 1 (-1 = -1).
      {{LinearEquation::kPoisson, Boundary::kRobin}, [](auto& x) { return x + 1 - x * x; }, [](auto& x) { return torch::full_like(x, 2); }},
      {{LinearEquation::kHelmholtz, Boundary::kDirichlet, 1, 0, k}, [](auto& x) { return torch::sin(2 * M_PI * x); }, [k](auto& x) { return (4 * M_PI * M_PI - k * k) * torch::sin(2 * M_PI * x); }},
      {{LinearEquation::kAdvectionDiffusion, Boundary::kDirichlet, 1, 0, 0, b}, [](auto& x) { return torch::sin(M_PI * x); },
       [b](auto& x) { return M_PI * M_PI * torch::sin(M_PI * x) + b * M_PI * torch::cos(M_PI * x); }}};
  for (size_t i = 0; i < cases.size(); ++i) {
    double error[2];
    for (int fine = 0; fine < 2; ++fine) {
      LinearPde pde = cases[i].pde;
      pde.points = fine ? 80 : 40;
      const auto system = discretise(pde);
      const auto x = system.coordinates.squeeze(1);
      error[fine] = largest(solve(system, cases[i].f(x)) - cases[i].u(x));
    }
    EXPECT_LE(error[1], 0.3 * error[0] + 1e-12) << "case " << i;
    EXPECT_LE(error[1], 3e-3) << "case " << i;
  }
}

TEST(LinearPde, SolvesPoissonOnTheSquare) {
  LinearPde pde;
  pde.axes = 2, pde.points = 15;
  const auto system = discretise(pde);
  const auto u = torch::sin(M_PI * system.coordinates.select(1, 0)) * torch::sin(2 * M_PI * system.coordinates.select(1, 1));
  EXPECT_LE(largest(solve(system, 5 * M_PI * M_PI * u) - u), 0.02);
  EXPECT_LE(largest(system.green - system.green.t()), 1e-9);
}

TEST(LinearPde, AdvectionMakesGreensFunctionAsymmetric) {
  LinearPde pde;
  pde.equation = LinearEquation::kAdvectionDiffusion, pde.advection = 20;
  const auto green = discretise(pde).green;
  EXPECT_GE(largest(green - green.t()), 0.5 * largest(green));
}

TEST(LinearPde, RefusesGridsTooCoarseForTheEquationAndResonances) {
  EXPECT_THAT(refusal({LinearEquation::kAdvectionDiffusion, Boundary::kDirichlet, 1, 20, 0, 100}), HasSubstr("too coarse for advection"));
  EXPECT_THAT(refusal({LinearEquation::kHelmholtz, Boundary::kDirichlet, 1, 20, 50}), HasSubstr("8 points a wave"));
  EXPECT_THAT(refusal({LinearEquation::kPoisson, Boundary::kDirichlet, 1, 3}), HasSubstr("expected at least 4"));
  // The wave number whose square is the grid's own smallest eigenvalue.
  const double h = 1.0 / 41, resonance = 2 / h * std::sin(M_PI * h / 2);
  EXPECT_THAT(refusal({LinearEquation::kHelmholtz, Boundary::kDirichlet, 1, 40, resonance}), HasSubstr("resonance"));
}

TEST(GaussianProcess, HasTheCovarianceThatWasAskedFor) {
  const auto covariance = squared_exponential(torch::linspace(0, 1, 9, torch::kFloat64).unsqueeze(1), 0.3);
  const auto draws = draw_gaussian_process(covariance, 20000, at::detail::createCPUGenerator(1)).to(torch::kFloat64);
  EXPECT_LE(largest(torch::matmul(draws.t(), draws) / 20000 - covariance), 0.04);
}

// Cole-Hopf: u = -2 nu phi_x / phi with phi a solution of the heat equation.
TEST(Burgers, IsTheSolutionOfColeAndHopf) {
  BurgersOptions options;
  options.step = 1e-3;
  const int64_t n = 128;
  const double nu = options.viscosity, w = 2 * M_PI;
  const auto x = torch::arange(n, torch::kFloat64) / double(n);
  const auto at = [&](double t) {
    const double decay = std::exp(-nu * w * w * t);
    const auto phi = 2 + decay * torch::cos(w * x);
    return (2 * nu * w * decay * torch::sin(w * x) / phi).unsqueeze(0);
  };
  EXPECT_LE(largest(evolve_burgers(at(0), options) - at(1)), 1e-10);
}

TEST(Burgers, DrawsTheSameFieldsForTheSameSeedAndKeepsTheirMean) {
  BurgersOptions options;
  options.step = 5e-3;
  const auto a = solve_burgers(3, options, at::detail::createCPUGenerator(4)), b = solve_burgers(3, options, at::detail::createCPUGenerator(4));
  EXPECT_TRUE(torch::equal(a.after, b.after));
  EXPECT_LE(largest(a.before.mean(1) - a.after.mean(1)), 1e-3) << "of 64 points of fields with waves up to 128";
  EXPECT_EQ(a.before.sizes(), (std::vector<int64_t>{3, 64}));
}

TEST(Burgers, RefusesStepsThatBlowUpAndResolutionsThatDoNotFit) {
  BurgersOptions options;
  options.resolution = 100;
  EXPECT_THROW(solve_burgers(1, options, at::detail::createCPUGenerator(0)), ArgumentError);
  options = {.viscosity = 1e-4, .step = 0.25};
  EXPECT_THROW(evolve_burgers(100 * torch::randn({1, 256}, at::detail::createCPUGenerator(0), torch::TensorOptions(torch::kFloat64)), options), ArgumentError);
}

}  // namespace
}  // namespace fovea::data
