#include "fovea/data/linear_pde.h"

#include <cmath>

#include "fovea/core/error.h"

namespace fovea::data {

namespace {
const auto kExact = torch::TensorOptions(torch::kFloat64);

struct Axis {
  torch::Tensor points, laplacian, slope;  // [n], [n,n] of -u'', [n,n] of u'
  double spacing = 0;
};

Axis make_axis(Boundary boundary, int64_t n) {
  Axis axis;
  const bool inside = boundary == Boundary::kDirichlet;  // the ends themselves are known there
  const double h = axis.spacing = inside ? 1.0 / double(n + 1) : 1.0 / double(n);
  const double first = inside ? h : boundary == Boundary::kPeriodic ? 0 : h / 2;
  axis.points = first + h * torch::arange(n, kExact);
  axis.laplacian = torch::zeros({n, n}, kExact), axis.slope = torch::zeros({n, n}, kExact);
  auto second = axis.laplacian.accessor<double, 2>(), slope = axis.slope.accessor<double, 2>();
  // The point beyond an end in terms of the last one before it.
  const double beyond = boundary == Boundary::kNeumann ? 1 : boundary == Boundary::kRobin ? (1 - h / 2) / (1 + h / 2) : 0;
  for (int64_t i = 0; i < n; ++i) {
    second[i][i] += 2 / (h * h);
    for (const int64_t step : {int64_t{-1}, int64_t{1}}) {
      int64_t j = i + step;
      double weight = 1;
      if (boundary == Boundary::kPeriodic) j = (j + n) % n;
      if (j < 0 || j >= n) j = i, weight = beyond;
      second[i][j] -= weight / (h * h);
      slope[i][j] += double(step) * weight / (2 * h);
    }
  }
  return axis;
}
}  // namespace

LinearSystem discretise(const LinearPde& pde) {
  if (pde.points < 4) throw ArgumentError("linear pde: " + std::to_string(pde.points) + " points a side, expected at least 4");
  if (pde.axes != 1 && pde.axes != 2) throw ArgumentError("linear pde: " + std::to_string(pde.axes) + " axes, expected 1 or 2");
  const Axis axis = make_axis(pde.boundary, pde.points);
  const double h = axis.spacing;
  if (pde.equation == LinearEquation::kAdvectionDiffusion && std::abs(pde.advection) * h >= 2)
    throw ArgumentError("linear pde: the grid is too coarse for advection " + std::to_string(pde.advection) + ": expected more than " +
                        std::to_string(int64_t(std::abs(pde.advection) / 2)) + " points a side");
  if (pde.equation == LinearEquation::kHelmholtz && pde.wave_number * h * 8 > 2 * M_PI)
    throw ArgumentError("linear pde: the grid is too coarse for wave number " + std::to_string(pde.wave_number) + ": expected 8 points a wave, more than " +
                        std::to_string(int64_t(8 * pde.wave_number / (2 * M_PI))) + " a side");
  const auto one = torch::eye(pde.points, kExact);
  LinearSystem system;
  if (pde.axes == 1) {
    system.coordinates = axis.points.unsqueeze(1);
    system.matrix = axis.laplacian.clone();
    if (pde.equation == LinearEquation::kAdvectionDiffusion) system.matrix += pde.advection * axis.slope;
    system.cell = h;
  } else {
    const auto places = torch::meshgrid({axis.points, axis.points}, "ij");
    system.coordinates = torch::stack({places[0].flatten(), places[1].flatten()}, 1);
    system.matrix = torch::kron(axis.laplacian, one) + torch::kron(one, axis.laplacian);
    if (pde.equation == LinearEquation::kAdvectionDiffusion) system.matrix += pde.advection * torch::kron(one, axis.slope);
    system.cell = h * h;
  }
  if (pde.equation == LinearEquation::kHelmholtz) system.matrix -= pde.wave_number * pde.wave_number * torch::eye(system.matrix.size(0), kExact);
  const bool constants_lost = pde.equation != LinearEquation::kHelmholtz && (pde.boundary == Boundary::kNeumann || pde.boundary == Boundary::kPeriodic);
  const auto singular = torch::linalg_svdvals(system.matrix);
  const int64_t kept = singular.size(0) - (constants_lost ? 1 : 0);
  if (singular[kept - 1].item<double>() < 1e-6 * singular[0].item<double>())
    throw ArgumentError("linear pde: wave number " + std::to_string(pde.wave_number) + " is a resonance of the grid: no solution is unique");
  system.green = (constants_lost ? torch::linalg_pinv(system.matrix, /*rcond=*/1e-10) : torch::linalg_inv(system.matrix)) / system.cell;
  return system;
}

torch::Tensor poisson_green(const torch::Tensor& x, const torch::Tensor& y) {
  const auto a = x.unsqueeze(1), b = y.unsqueeze(0);
  return torch::minimum(a, b) * (1 - torch::maximum(a, b));
}

torch::Tensor squared_exponential(const torch::Tensor& coordinates, double length, bool periodic) {
  auto apart = coordinates.to(torch::kFloat64).unsqueeze(1) - coordinates.to(torch::kFloat64).unsqueeze(0);  // N N D
  // On a circle: the chord instead of the arc keeps the covariance positive definite.
  if (periodic) apart = torch::sin(M_PI * apart) / M_PI;
  return torch::exp(-apart.square().sum(2) / (2 * length * length));
}

torch::Tensor draw_gaussian_process(const torch::Tensor& covariance, int64_t count, at::Generator generator) {
  const int64_t n = covariance.size(0);
  const auto root = torch::linalg_cholesky(covariance + 1e-8 * torch::eye(n, kExact));
  return torch::matmul(torch::randn({count, n}, generator, kExact), root.t()).to(torch::kFloat32);
}

}  // namespace fovea::data
