#pragma once
#include <torch/torch.h>

namespace fovea::data {

struct BurgersOptions {
  double viscosity = 0.1;
  double until = 1;              // time
  int64_t points = 64;           // kept of each field, evenly spaced on [0, 1)
  int64_t resolution = 256;      // of the solver; a multiple of points
  double step = 2e-3;            // of time
};

/// Fields before and after: u_t + u u_x = viscosity u_xx, periodic on [0, 1).
struct BurgersPairs {
  torch::Tensor before, after;  // [count, points] f32
};

/// Start values are drawn from N(0, 625 (-d^2/dx^2 + 25)^-2), as in the literature on operator learning.
/// Method   pseudo-spectral in double, 2/3 rule against aliasing, the viscous part exact (integrating factor), the rest by
///          Runge-Kutta of fourth order
/// Errors   ArgumentError: a resolution that is no multiple of points or too coarse; ArgumentError when a field grew beyond
///          all numbers (step too large)
BurgersPairs solve_burgers(int64_t count, const BurgersOptions& options, at::Generator generator);

/// The solution alone: u0 [count, resolution] f64 -> [count, resolution] f64.
torch::Tensor evolve_burgers(const torch::Tensor& u0, const BurgersOptions& options);

}  // namespace fovea::data
