#pragma once
#include <torch/torch.h>

namespace fovea::data {

/// Darcy flow through a medium of two materials on the unit square: -div(a grad u) = f, u = 0 at the border.
struct DarcyOptions {
  int64_t points = 41;        // a side, border included
  double low = 3, high = 12;  // permeability a
};

/// Which material lies where: high where a draw of the Gaussian field N(0, (-Laplace + 9)^-2) with flat borders (cosines)
/// is above 0, low elsewhere.
/// Returns  [count, points, points] f64
/// Errors   ArgumentError: fewer than 4 points a side, permeabilities that are not above 0
/// Source   Li et al. 2021 (FNO), arXiv:2010.08895, section 5.2
torch::Tensor draw_darcy_media(int64_t count, const DarcyOptions& options, at::Generator generator);

/// u of a and f, each [count, points, points] f64.
/// Method   five-point differences, the harmonic mean of a between two points (the flow through two materials in a row);
///          conjugate gradients on all fields at once until the residual is 1e-10 of f
/// Errors   ArgumentError: shapes, a not above 0; ArgumentError when the gradients do not converge
/// Cost     O(points^3) a field
torch::Tensor solve_darcy(const torch::Tensor& a, const torch::Tensor& f);

}  // namespace fovea::data
