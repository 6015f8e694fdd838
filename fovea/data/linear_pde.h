#pragma once
#include <torch/torch.h>

#include <string>

namespace fovea::data {

enum class LinearEquation {
  kPoisson,             ///< -u'' = f
  kHelmholtz,           ///< -u'' - k^2 u = f
  kAdvectionDiffusion,  ///< -u'' + b u' = f: its Green's function is not symmetric
};
enum class Boundary {
  kDirichlet,  ///< u = 0
  kNeumann,    ///< u' = 0; solutions and forcings of mean 0
  kPeriodic,   ///< solutions and forcings of mean 0
  kRobin,      ///< u' = u at the lower end, u' = -u at the upper
};

/// A linear boundary value problem on the unit interval or square.
struct LinearPde {
  LinearEquation equation = LinearEquation::kPoisson;
  Boundary boundary = Boundary::kDirichlet;
  int64_t axes = 1;         // 1 or 2
  int64_t points = 48;      // a side
  double wave_number = 0;   // k
  double advection = 0;     // b, along the last axis
};

/// The problem on its grid: second-order differences, and the exact inverse of their matrix.
struct LinearSystem {
  torch::Tensor coordinates;  // [N,D] f64; the last axis fastest
  torch::Tensor matrix;       // [N,N] f64
  torch::Tensor green;        // [N,N] f64: u_i = cell * sum_j green_ij f_j; the pseudo-inverse where constants are lost
  double cell = 0;            // length or area that belongs to a point
};

/// Errors   ArgumentError: fewer than 4 points a side; a grid too coarse for the equation (b h >= 2 oscillates; fewer than
///          8 points a wave); a wave number at a resonance, where no solution is unique.
/// Cost     O(N^3)
LinearSystem discretise(const LinearPde& pde);

/// Green's function of -u'' = f with u(0) = u(1) = 0: min(x, y) (1 - max(x, y)). [N,M] of x [N], y [M].
torch::Tensor poisson_green(const torch::Tensor& x, const torch::Tensor& y);

/// exp(-|x - y|^2 / 2 length^2) between all points; with period 1 along every axis if asked for. [N,N] f64.
torch::Tensor squared_exponential(const torch::Tensor& coordinates, double length, bool periodic = false);

/// Draws of the Gaussian process with that covariance, [count,N] f32.
torch::Tensor draw_gaussian_process(const torch::Tensor& covariance, int64_t count, at::Generator generator);

}  // namespace fovea::data
