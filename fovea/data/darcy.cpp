#include "fovea/data/darcy.h"

#include <cmath>

#include "fovea/core/error.h"

namespace fovea::data {

namespace {
// Between neighbours along an axis.
torch::Tensor harmonic_mean(const torch::Tensor& a, int64_t axis) {
  const auto one = a.slice(axis, 0, -1), other = a.slice(axis, 1);
  return 2 * one * other / (one + other);
}

torch::Tensor sums(const torch::Tensor& x) { return x.sum({1, 2}, /*keepdim=*/true); }
}  // namespace

torch::Tensor draw_darcy_media(int64_t count, const DarcyOptions& options, at::Generator generator) {
  const int64_t n = options.points;
  if (n < 4) throw ArgumentError("darcy: " + std::to_string(n) + " points a side, expected 4 or more");
  if (!(options.low > 0 && options.high > 0)) throw ArgumentError("darcy: a permeability is not above 0");
  const auto wave = M_PI * torch::arange(n, torch::kFloat64), place = torch::arange(n, torch::kFloat64) / double(n - 1);
  const auto cosines = torch::cos(torch::outer(place, wave));  // [point, mode]
  // The square root of (-Laplace + 9)^-2 on each pair of modes; the constant one would move the share of the materials.
  auto deviation = 1 / (wave.square().unsqueeze(1) + wave.square().unsqueeze(0) + 9);
  deviation[0][0] = 0;
  deviation *= torch::where(torch::arange(n) == 0, 1.0, std::sqrt(2)).unsqueeze(1) * torch::where(torch::arange(n) == 0, 1.0, std::sqrt(2));
  const auto modes = deviation * torch::randn({count, n, n}, generator, torch::TensorOptions(torch::kFloat64));
  const auto field = torch::matmul(torch::matmul(cosines, modes), cosines.t());
  return torch::where(field > 0, options.high, options.low).to(torch::kFloat64);
}

torch::Tensor solve_darcy(const torch::Tensor& a, const torch::Tensor& f) {
  if (a.dim() != 3 || a.size(1) != a.size(2) || a.size(1) < 4 || f.sizes() != a.sizes())
    throw ArgumentError(c10::str("darcy: a is ", a.sizes(), ", f ", f.sizes(), ", expected both [count,points,points], 4 points or more"));
  if (!(a > 0).all().item<bool>()) throw ArgumentError("darcy: a permeability is not above 0");
  const int64_t n = a.size(1);
  const double per_area = double(n - 1) * double(n - 1);
  // Flow through the faces between points; of an inner point, the faces below and above it along both axes.
  const auto across_y = (harmonic_mean(a, 1) * per_area).slice(2, 1, -1), across_x = (harmonic_mean(a, 2) * per_area).slice(1, 1, -1);
  const auto diagonal = across_y.slice(1, 0, -1) + across_y.slice(1, 1) + across_x.slice(2, 0, -1) + across_x.slice(2, 1);
  const auto apply = [&](const torch::Tensor& u) {
    const auto padded = torch::constant_pad_nd(u, {1, 1, 1, 1});
    const auto flow_y = across_y * padded.slice(2, 1, -1).diff(1, 1), flow_x = across_x * padded.slice(1, 1, -1).diff(1, 2);
    return -(flow_y.diff(1, 1) + flow_x.diff(1, 2));
  };
  const auto inner = f.slice(1, 1, -1).slice(2, 1, -1);
  auto u = torch::zeros_like(inner), r = inner.clone(), z = r / diagonal, p = z.clone(), rz = sums(r * z);
  const auto enough = 1e-10 * inner.square().sum({1, 2}).sqrt();
  for (int64_t i = 0; (r.square().sum({1, 2}).sqrt() > enough).any().item<bool>(); ++i) {
    if (i == 20 * n) throw ArgumentError("darcy: no convergence; permeabilities differ too much");
    const auto ap = apply(p);
    const auto step = rz / sums(p * ap).clamp_min(1e-300);  // 0 / 0 where a field is done to the last bit
    u += step * p, r -= step * ap;
    z = r / diagonal;
    const auto next = sums(r * z);
    p = z + next / rz.clamp_min(1e-300) * p, rz = next;
  }
  return torch::constant_pad_nd(u, {1, 1, 1, 1});
}

}  // namespace fovea::data
