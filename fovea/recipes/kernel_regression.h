#pragma once
#include <torch/torch.h>

#include <vector>

// Row A1: Nadaraya-Watson kernel regression, computed by attention. With queries [x, 1], keys [x_i, -|x_i|^2 / 2] and
// scale 1/h^2 a score is -|x - x_i|^2 / (2 h^2) plus what depends on x alone, which softmax does not see: the weights
// are those of the Gaussian kernel. All of this file is double precision.
namespace fovea::recipes {

/// What is fitted round each place: a constant (Nadaraya-Watson) or a plane (local-linear), whose error at a boundary
/// falls with h^2 instead of h.
enum class LocalFit { kConstant, kPlane };

/// Measured values at points.
struct Samples {
  torch::Tensor points;  // [M,D]
  torch::Tensor values;  // [M]
};

/// A bandwidth h, one for all axes or one an axis, in the units of the points. Scaling an axis is a metric.
using Bandwidth = std::vector<double>;

/// q [N,D+1], k [M,D+1] and the scale with which attention is kernel regression. Coordinates are taken relative to the
/// mean of the points, so that far origins cost no digits.
struct KernelAttention {
  torch::Tensor q, k;
  double scale = 1;
};
KernelAttention kernel_attention(const torch::Tensor& points, const torch::Tensor& x, const Bandwidth& h);

/// The regression at x [N,D] -> [N]. A plane is fitted from the weighted means of x_i, x_i x_i^T, y_i and x_i y_i,
/// which are one attention call with those as values; where the samples in reach do not span a plane the slope is the
/// smallest. Far from all samples the nearest one decides (the largest score is subtracted before exp), never 0/0.
/// Errors   ArgumentError on shapes, fewer than two samples, or a bandwidth that is not positive.
/// Cost     O(N M D^2) time (kPlane; O(N M D) kConstant), no N x M tensor.
/// Source   Nadaraya 1964; Watson 1964; Fan 1992 (local-linear).
torch::Tensor kernel_regression(const Samples& samples, const torch::Tensor& x, const Bandwidth& h,
                                LocalFit fit = LocalFit::kConstant);

/// sqrt(sum of squared weights) at x [N,D] -> [N]: times the deviation of the noise it is the standard error of the
/// regression. Squared softmax weights are a softmax at twice the scale, times exp(lse(2 scale) - 2 lse(scale)).
torch::Tensor weight_norms(const Samples& samples, const torch::Tensor& x, const Bandwidth& h,
                           LocalFit fit = LocalFit::kConstant);

/// Each sample predicted from all others, [M]: from the regression with it, by dropping the diagonal of the smoother,
/// (m(x_i) - L_ii y_i) / (1 - L_ii). Exact for both fits. Samples so far from others that 1 - L_ii has no digits left
/// are computed again with their own key masked.
torch::Tensor leave_one_out(const Samples& samples, const Bandwidth& h, LocalFit fit = LocalFit::kConstant);

/// Pointwise band regression +- z * standard error, z of the normal distribution. It covers the mean of the regression:
/// its bias, O(h^2), is not in it, so choose h below the best one for a band that covers the truth.
struct Band {
  torch::Tensor middle, low, high;  // [N]
  double noise_deviation = 0;       // sqrt(|residuals|^2 / (M - 2 tr L + tr L L^T))
};
Band confidence_band(const Samples& samples, const torch::Tensor& x, const Bandwidth& h,
                     LocalFit fit = LocalFit::kConstant, double z = 1.96);

/// The bandwidth of smallest mean squared leave-one-out error and the curve it was found on. h is searched between a
/// quarter of the samples' spacing and the diagonal of their box, times `axes` (default: equal axes): 25 steps by a
/// factor, then a golden section. Cost: 47 times leave_one_out().
struct BandwidthChoice {
  Bandwidth h;
  double error = 0;                     // root mean square, left out
  std::vector<double> tried, error_of;  // the curve, by bandwidth
};
BandwidthChoice choose_bandwidth(const Samples& samples, LocalFit fit = LocalFit::kConstant,
                                 const Bandwidth& axes = {});

/// The same by learning: attention whose log-bandwidth(s) are trained by Adam on the squared error of samples that do
/// not see themselves (a bias of minus infinity on the diagonal), from a wide and a narrow start: the error may have two
/// valleys. `axes`: one bandwidth each, a learned metric.
/// Cost     O(steps M^2), and M x M for the bias: for some thousand samples.
Bandwidth learn_bandwidth(const Samples& samples, bool axes = false, int steps = 400);

}  // namespace fovea::recipes
