#include "fovea/data/burgers.h"

#include <cmath>

#include "fovea/core/error.h"

namespace fovea::data {

torch::Tensor evolve_burgers(const torch::Tensor& u0, const BurgersOptions& options) {
  const int64_t n = u0.size(1), steps = int64_t(std::llround(options.until / options.step));
  if (n < 16) throw ArgumentError("burgers: " + std::to_string(n) + " points are too coarse a grid, expected at least 16");
  const double dt = options.until / double(steps);
  const auto wave = 2 * M_PI * torch::arange(n / 2 + 1, torch::kFloat64);
  const auto slope = torch::complex(torch::zeros_like(wave), wave);
  const auto kept = (torch::arange(n / 2 + 1) < n / 3).to(torch::kFloat64);
  const auto half = torch::exp(-options.viscosity * wave.square() * dt / 2), whole = half.square();
  // dt times the advection term of a spectrum.
  const auto push = [&](const torch::Tensor& spectrum) {
    const auto u = torch::fft_irfft(spectrum * kept, n);
    return -0.5 * dt * slope * torch::fft_rfft(u.square());
  };
  auto u = torch::fft_rfft(u0);
  for (int64_t i = 0; i < steps; ++i) {
    const auto a = push(u), b = push(half * (u + a / 2)), c = push(half * u + b / 2), d = push(whole * u + half * c);
    u = whole * u + (whole * a + 2 * half * (b + c) + d) / 6;
  }
  const auto out = torch::fft_irfft(u, n);
  if (!out.isfinite().all().item<bool>()) throw ArgumentError("burgers: the field grew beyond all numbers; take a smaller step than " + std::to_string(options.step));
  return out;
}

BurgersPairs solve_burgers(int64_t count, const BurgersOptions& options, at::Generator generator) {
  const int64_t n = options.resolution;
  if (options.points < 1 || n % options.points != 0)
    throw ArgumentError("burgers: resolution " + std::to_string(n) + " is no multiple of " + std::to_string(options.points) + " points");
  const auto wave = 2 * M_PI * torch::arange(n / 2 + 1, torch::kFloat64);
  const auto deviation = 25 / (wave.square() + 25);
  auto parts = torch::randn({count, n / 2 + 1, 2}, generator, torch::TensorOptions(torch::kFloat64)) * deviation.unsqueeze(1);
  parts.select(1, 0).select(1, 1).zero_();  // the mean is real
  const auto u0 = torch::fft_irfft(torch::view_as_complex(parts), n, -1, "forward");
  const auto keep = [&](const torch::Tensor& u) { return u.slice(1, 0, n, n / options.points).to(torch::kFloat32).contiguous(); };
  return {keep(u0), keep(evolve_burgers(u0, options))};
}

}  // namespace fovea::data
