#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "fovea/recipes/kernel_regression.h"

// What `fovea check`, `fovea claims` and the lessons find out about kernel regression, each computed in one place. All
// data here are simulated.
namespace fovea::recipes {

/// y = 2 sin x + x^0.8 + normal(0, 0.5), x uniform on [0, 5]: the example of "Dive into Deep Learning".
Samples textbook_samples(int64_t n, uint64_t seed);
/// The curve without noise.
torch::Tensor textbook_curve(const torch::Tensor& x);

/// Largest differences between attention and Gaussian kernel regression in plain loops: 200 queries, 300 points in 3-D,
/// all normal, h = 0.5.
struct LoopDifferences {
  double gaussian = 0;               // q = [x, 1], k = [x_i, -|x_i|^2 / 2], scale 1/h^2
  double dot_product = 0;            // q = x, k = x_i
  double dot_product_unit_keys = 0;  // the same with keys of length 1
};
LoopDifferences attention_against_loops(uint64_t seed);

/// Mean squared error of f = sin 2 pi x with noise 0.3 at bandwidth 0.12 n^(-1/5), n = 400 to 25600, and its slopes in
/// log n: inside, at the boundary, and at the boundary with a local plane. Theory: -0.8, -0.4, -0.8.
struct ErrorSlopes {
  std::vector<double> n;
  std::vector<double> inside, boundary, boundary_plane;  // mean squared errors
  double inside_slope = 0, boundary_slope = 0, boundary_plane_slope = 0;
};
/// Cost     some 5 s for 40 replicates on two cores.
ErrorSlopes error_slopes(int replicates, uint64_t seed);

/// Bandwidths found in two ways on the textbook's samples.
struct LearnedBandwidth {
  double learned = 0, chosen = 0;  // by gradient through attention, by leave-one-out search
};
LearnedBandwidth compare_bandwidths(int64_t n, uint64_t seed);

/// Bandwidths learnt an axis on samples whose values depend on the first of two axes alone.
std::array<double, 2> learn_relevant_axis(uint64_t seed);

/// Share of the curve, in percent of places, that lies in the 95 % band: mean over replicates, bandwidth half the
/// chosen one, local planes.
double band_coverage(int replicates, uint64_t seed);

}  // namespace fovea::recipes
