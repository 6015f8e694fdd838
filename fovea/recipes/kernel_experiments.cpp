#include "fovea/recipes/kernel_experiments.h"

#include <cmath>

#include "fovea/ops/attention.h"
#include "fovea/recipes/log_slope.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace {
const auto kF64 = torch::TensorOptions(torch::kFloat64);

// Gaussian kernel regression in plain loops: x [N,D], points [M,D], values [M] -> [N].
torch::Tensor regression_by_loops(const torch::Tensor& x, const torch::Tensor& points, const torch::Tensor& values,
                                  double bandwidth) {
  auto out = torch::zeros({x.size(0)}, x.options());
  const auto a = x.accessor<double, 2>(), b = points.accessor<double, 2>();
  const auto v = values.accessor<double, 1>();
  auto o = out.accessor<double, 1>();
  for (int64_t i = 0; i < x.size(0); ++i) {
    double sum = 0, weighted = 0;
    for (int64_t j = 0; j < points.size(0); ++j) {
      double squared = 0;
      for (int64_t d = 0; d < x.size(1); ++d) squared += (a[i][d] - b[j][d]) * (a[i][d] - b[j][d]);
      const double weight = std::exp(-squared / (2 * bandwidth * bandwidth));
      sum += weight, weighted += weight * v[j];
    }
    o[i] = weighted / sum;
  }
  return out;
}

// One head of attention on [N,C], [M,C], [M].
torch::Tensor attend(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v, double scale) {
  const auto lift = [](const torch::Tensor& t) { return t.unsqueeze(0).unsqueeze(0); };
  return std::get<0>(ops::attention(lift(q), lift(k), lift(v.unsqueeze(-1)), {}, {}, false, scale)).flatten();
}
}  // namespace

Samples textbook_samples(int64_t n, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  const auto x = torch::rand({n}, generator, kF64) * 5;
  return {x.unsqueeze(1), textbook_curve(x) + 0.5 * torch::randn({n}, generator, kF64)};
}

torch::Tensor textbook_curve(const torch::Tensor& x) { return 2 * x.sin() + x.pow(0.8); }

LoopDifferences attention_against_loops(uint64_t seed) {
  torch::NoGradGuard no_grad;
  auto generator = at::detail::createCPUGenerator(seed);
  constexpr double h = 0.5;
  const auto x = torch::randn({200, 3}, generator, kF64), points = torch::randn({300, 3}, generator, kF64);
  const auto values = torch::randn({300}, generator, kF64);
  const auto largest = [](const torch::Tensor& t) { return t.abs().max().item<double>(); };
  const KernelAttention a = kernel_attention(points, x, {h});
  const auto unit = points / points.norm(2, 1, true);
  LoopDifferences d;
  d.gaussian = largest(attend(a.q, a.k, values, a.scale) - regression_by_loops(x, points, values, h));
  d.dot_product = largest(attend(x, points, values, 1 / (h * h)) - regression_by_loops(x, points, values, h));
  d.dot_product_unit_keys = largest(attend(x, unit, values, 1 / (h * h)) - regression_by_loops(x, unit, values, h));
  return d;
}

ErrorSlopes error_slopes(int replicates, uint64_t seed) {
  constexpr int64_t kInside = 13;
  auto generator = at::detail::createCPUGenerator(seed);
  // Places inside, then both ends.
  const auto x = torch::cat({torch::linspace(0.2, 0.8, kInside, kF64), torch::tensor({0.0, 1.0}, kF64)}).unsqueeze(1);
  const auto truth = (2 * M_PI * x.squeeze(1)).sin(), ends = x.slice(0, kInside);
  ErrorSlopes s;
  for (int64_t n = 400; n <= 25600; n *= 2) {
    const Bandwidth h = {0.12 * std::pow(double(n), -0.2)};
    auto squared = torch::zeros({kInside + 2}, kF64), squared_plane = torch::zeros({2}, kF64);
    for (int r = 0; r < replicates; ++r) {
      const auto points = torch::rand({n, 1}, generator, kF64);
      const Samples samples{points, (2 * M_PI * points.squeeze(1)).sin() + 0.3 * torch::randn({n}, generator, kF64)};
      squared += (kernel_regression(samples, x, h) - truth).square();
      squared_plane += (kernel_regression(samples, ends, h, LocalFit::kPlane) - truth.slice(0, kInside)).square();
    }
    s.n.push_back(double(n));
    s.inside.push_back(squared.slice(0, 0, kInside).mean().item<double>() / replicates);
    s.boundary.push_back(squared.slice(0, kInside).mean().item<double>() / replicates);
    s.boundary_plane.push_back(squared_plane.mean().item<double>() / replicates);
  }
  s.inside_slope = log_slope(s.n, s.inside), s.boundary_slope = log_slope(s.n, s.boundary);
  s.boundary_plane_slope = log_slope(s.n, s.boundary_plane);
  return s;
}

LearnedBandwidth compare_bandwidths(int64_t n, uint64_t seed) {
  const OneThread one_thread;
  const Samples samples = textbook_samples(n, seed);
  return {learn_bandwidth(samples)[0], choose_bandwidth(samples).h[0]};
}

std::array<double, 2> learn_relevant_axis(uint64_t seed) {
  const OneThread one_thread;
  auto generator = at::detail::createCPUGenerator(seed);
  const auto points = torch::rand({200, 2}, generator, kF64);
  const auto values = (2 * M_PI * points.select(1, 0)).sin() + 0.2 * torch::randn({200}, generator, kF64);
  const Bandwidth h = learn_bandwidth({points, values}, /*axes=*/true);
  return {h[0], h[1]};
}

double band_coverage(int replicates, uint64_t seed) {
  const OneThread one_thread;
  const auto x = torch::linspace(0.25, 4.75, 46, kF64).unsqueeze(1);
  const auto truth = textbook_curve(x.squeeze(1));
  double covered = 0;
  for (int r = 0; r < replicates; ++r) {
    const Samples samples = textbook_samples(200, seed * 1000 + r);
    const double h = choose_bandwidth(samples, LocalFit::kPlane).h[0] / 2;
    const Band band = confidence_band(samples, x, {h}, LocalFit::kPlane);
    covered += ((band.low <= truth) & (truth <= band.high)).to(torch::kFloat64).mean().item<double>() / replicates;
  }
  return 100 * covered;
}

}  // namespace fovea::recipes
