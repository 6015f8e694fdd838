#pragma once
#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "fovea/data/linear_pde.h"

// Does attention that learns to solve a linear boundary value problem hold its Green's function? Row A12.
namespace fovea::recipes {

/// What learns u from f, at points of a grid.
enum class OperatorNetwork {
  kPosition,           ///< nn::PositionAttention: the kernel itself, linear in f
  kSymmetricPosition,  ///< the same with k(x, y) = k(y, x)
  kFourier,            ///< models::OperatorTransformer without softmax, one layer
  kGalerkin,           ///< the same, two layers of the Galerkin kind
  kSoftmax,            ///< the same, two layers with softmax
};
std::string name_of(OperatorNetwork network);

struct OperatorOptions {
  data::LinearPde pde;
  double forcing_length = 0.05;  // of the Gaussian process that f is drawn from
  int64_t steps = 2000;
};

/// On 256 fresh forcings.
struct OperatorScore {
  double relative_l2 = 0;         // mean of |u - exact| / |exact|
  std::vector<double> at_points;  // the same on grids of 2 and 4 times the points, without training; in 1-D only
  double raw = 0;                 // correlation with Green's function: best single head's mean map, sign left free
  double effective = 0;           // of the effective kernel, the mean of du_i / df_j by the cell
  double filtered = 0;            // of both after the forcing's covariance: the part that the data show
  int64_t parameters = 0;
  torch::Tensor kernel, green;    // [N,N] effective and exact
};

/// Trains a network on Gaussian-process forcings drawn anew, by the relative L2 error (Adam, one cycle). Same seed, same
/// result. Errors: as data::discretise().
OperatorScore learn_green(OperatorNetwork network, const OperatorOptions& options, uint64_t seed);

/// On 100 fresh pairs of fields.
struct FlowScore {
  double relative_l2 = 0;
  int64_t parameters = 0;
  double seconds = 0;  // of training
};
enum class FlowNetwork {
  kAttention,        ///< models::OperatorTransformer without softmax: knows nothing of the equation
  kPrimitive,        ///< nn::PrimitiveAttention: the form of Cole and Hopf's solution
  kFourierOperator,  ///< models::FourierOperator
};
std::string name_of(FlowNetwork network);
/// Relative L2 error of Burgers' field at time 1 from that at time 0 (simulated: our own solver).
FlowScore learn_burgers(FlowNetwork network, uint64_t seed, int64_t steps = 2000);

/// The same of the pressure of Darcy flow from the medium of two materials, f = 1, at 21 x 21 points (simulated: our own
/// solver at 41 x 41).
/// Errors   ArgumentError for kPrimitive, which is of Burgers' equation alone
FlowScore learn_darcy(FlowNetwork network, uint64_t seed, int64_t steps);

}  // namespace fovea::recipes
