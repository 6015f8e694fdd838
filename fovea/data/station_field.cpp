#include "fovea/data/station_field.h"

#include <cmath>
#include <limits>

#include "fovea/core/error.h"

namespace fovea::data {

namespace {
constexpr int64_t kPointsOfCell = 4;

// [B,P,P] of places [B,P,3].
torch::Tensor covariance(const torch::Tensor& places, const StationFieldOptions& options) {
  const auto apart = places.unsqueeze(2) - places.unsqueeze(1);
  const auto r = apart.slice(3, 0, 2).square().sum(3).add(1e-12).sqrt() * (std::sqrt(3.0) / options.range);
  return (1 + r) * (-r).exp() * (-apart.select(3, 2).abs() / options.span).exp();
}
}  // namespace

StationField draw_station_fields(const StationFieldOptions& options, int64_t count, bool posterior, at::Generator generator) {
  if (options.stations < 1 || options.targets < 1 || options.grid < 0 || options.missing < 0 || options.missing >= 1)
    throw ArgumentError("station field: expected stations and targets, a grid of 0 or more cells a side and less than all missing");
  const int64_t S = options.stations, G = options.grid * options.grid, M = S + G, N = options.targets;
  const auto f64 = torch::TensorOptions(torch::kFloat64);
  const auto uniform = [&](torch::IntArrayRef shape) { return torch::rand(shape, generator, f64); };
  const auto normal = [&](torch::IntArrayRef shape) { return torch::randn(shape, generator, f64); };
  StationField field;
  const auto stations = uniform({count, S, 3});
  field.target_places = uniform({count, N, 3});
  // Points of cells: quarters of each cell, all at the middle of the time.
  auto points = torch::empty({0, 3}, f64);
  if (G > 0) {
    const auto fine = (torch::arange(2 * options.grid, f64) + 0.5) / double(2 * options.grid);
    const auto y = fine.view({-1, 1}).expand({2 * options.grid, 2 * options.grid}), x = y.t();
    points = torch::stack({y, x, torch::full_like(y, 0.5)}, 2)  // [2g,2g,3] -> cell by cell
                 .view({options.grid, 2, options.grid, 2, 3}).transpose(1, 2).reshape({-1, 3});
  }
  const auto all = torch::cat({stations, points.unsqueeze(0).expand({count, -1, -1}), field.target_places}, 1);
  const auto K_points = covariance(all, options);
  // What is measured or asked, as means of points: [M+N,P].
  auto mean_of = torch::zeros({M + N, all.size(1)}, f64);
  for (int64_t i = 0; i < M + N; ++i) {
    if (i >= S && i < M) mean_of[i].slice(0, S + (i - S) * kPointsOfCell, S + (i - S + 1) * kPointsOfCell) = 1.0 / kPointsOfCell;
    else mean_of[i][i < S ? i : i - M + S + G * kPointsOfCell] = 1;
  }
  const auto K = torch::matmul(torch::matmul(mean_of, K_points), mean_of.t());
  const auto root = torch::linalg_cholesky(K + 1e-9 * torch::eye(M + N, f64));
  const auto truth = torch::matmul(root, normal({count, M + N, 1})).squeeze(2);

  const auto kind = torch::randint(2, {count, S}, generator, torch::TensorOptions(torch::kInt64));
  field.source = torch::cat({kind, torch::full({count, G}, 2, torch::kInt64)}, 1);
  const auto told = torch::where(kind == 0, options.errors[0], options.errors[1]).to(torch::kFloat64) * (0.3 * normal({count, S})).exp();
  const auto error = torch::cat({told, torch::full({count, G}, options.grid_error, f64)}, 1);
  const auto bias = torch::where(field.source == 2, options.grid_bias, 0.0).to(torch::kFloat64);
  const auto value = truth.slice(1, 0, M) + error * normal({count, M}) + bias;
  const auto missing = uniform({count, M}) < options.missing;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto centres = mean_of.slice(0, S, M);
  field.places = torch::cat({stations, torch::matmul(centres, all)}, 1);
  if (posterior) {
    // Missing measurements have no say: an error without end.
    const auto noise = torch::where(missing, 1e12, error.square());
    const auto known = K.slice(1, 0, M).slice(2, 0, M) + torch::diag_embed(noise), cross = K.slice(1, M).slice(2, 0, M);
    const auto solved = torch::linalg_solve(known, torch::cat({(value - bias).unsqueeze(2), cross.transpose(1, 2)}, 2), /*left=*/true);
    field.exact_mean = torch::matmul(cross, solved.slice(2, 0, 1)).squeeze(2).to(torch::kFloat32);
    field.exact_variance = (K.slice(1, M).slice(2, M).diagonal(0, 1, 2) - (cross * solved.slice(2, 1).transpose(1, 2)).sum(2)).to(torch::kFloat32);
  }
  field.places = field.places.to(torch::kFloat32), field.target_places = field.target_places.to(torch::kFloat32);
  field.value = value.masked_fill(missing, nan).to(torch::kFloat32), field.error = error.to(torch::kFloat32), field.truth = truth.slice(1, M).to(torch::kFloat32);
  return field;
}

}  // namespace fovea::data
