#include "fovea/recipes/station_field.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "fovea/models/seeded_generator.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace {
constexpr int64_t kBatch = 32, kFresh = 1024;
constexpr double kRate = 1e-2;

models::Targets targets_of(const data::StationField& field) {
  return {field.target_places, torch::zeros({field.truth.size(0), field.truth.size(1)}, torch::kInt64), {}};
}

torch::Tensor negative_log_likelihood(const torch::Tensor& mean, const torch::Tensor& log_variance, const torch::Tensor& truth) {
  return (std::log(2 * M_PI) + log_variance + (truth - mean).square() * (-log_variance).exp()) / 2;
}

double root_mean_square(const torch::Tensor& t) { return t.square().mean().sqrt().item<double>(); }

double covered_percent(const torch::Tensor& mean, const torch::Tensor& variance, const torch::Tensor& truth) {
  return 100 * ((truth - mean).abs() <= 1.96 * variance.sqrt()).to(torch::kFloat64).mean().item<double>();
}

// The best of a few bandwidths, which sees the truth: a lower bound of what kernel regression can do.
double kernel_error(const data::StationField& field) {
  const auto squared = torch::cdist(field.target_places, field.places).square();
  const auto missing = field.value.isnan().unsqueeze(1);
  double best = INFINITY;
  for (const double h : {0.05, 0.07, 0.1, 0.14, 0.2, 0.28}) {
    const auto weights = (-squared / (2 * h * h)).masked_fill(missing, -1e30).softmax(2);
    best = std::min(best, root_mean_square(torch::matmul(weights, field.value.nan_to_num(0).unsqueeze(2)).squeeze(2) - field.truth));
  }
  return best;
}

models::StationFusion train(const FieldLearning& options, uint64_t seed, const std::function<double()>& grid_error) {
  const models::SeededGenerator seeded(seed);
  auto generator = at::detail::createCPUGenerator(seed);
  models::StationFusionConfig config;
  config.sources = options.field.grid > 0 ? 3 : 2, config.layers = options.layers, config.score = options.score;
  models::StationFusion network(config);
  torch::optim::Adam optimizer(network->parameters(), torch::optim::AdamOptions(kRate));
  data::StationFieldOptions field_options = options.field;
  for (int64_t step = 0; step < options.steps; ++step) {
    const double rate = kRate * std::min(1.0, double(step + 1) / 50) * (1 + std::cos(M_PI * double(step) / double(options.steps))) / 2;
    static_cast<torch::optim::AdamOptions&>(optimizer.param_groups()[0].options()).lr(rate);
    if (grid_error) field_options.grid_error = grid_error();
    const auto field = data::draw_station_fields(field_options, kBatch, /*posterior=*/false, generator);
    const auto fused = network(measurements_of(field), targets_of(field));
    optimizer.zero_grad();
    negative_log_likelihood(fused.mean, fused.log_variance, field.truth).mean().backward();
    torch::nn::utils::clip_grad_norm_(network->parameters(), 1.0);
    optimizer.step();
  }
  return network;
}

FieldScore score_on_fresh(models::StationFusion& network, const data::StationFieldOptions& options, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed + 0x5EED);
  const auto field = data::draw_station_fields(options, kFresh, /*posterior=*/true, generator);
  torch::NoGradGuard no_grad;
  const auto fused = network(measurements_of(field), targets_of(field));
  FieldScore s;
  s.error = root_mean_square(fused.mean - field.truth), s.exact = root_mean_square(field.exact_mean - field.truth);
  s.kernel = kernel_error(field), s.mean_of_stations = root_mean_square(field.value.nanmean(1, true) - field.truth);
  s.covered = covered_percent(fused.mean, fused.log_variance.exp(), field.truth);
  s.exact_covered = covered_percent(field.exact_mean, field.exact_variance, field.truth);
  s.nll = negative_log_likelihood(fused.mean, fused.log_variance, field.truth).mean().item<double>();
  s.exact_nll = negative_log_likelihood(field.exact_mean, field.exact_variance.log(), field.truth).mean().item<double>();
  for (const auto& p : network->parameters()) s.parameters += p.numel();
  return s;
}
}  // namespace

std::string name_of(nn::PlaceScore score) {
  switch (score) {
    case nn::PlaceScore::kUniform: return "uniform";
    case nn::PlaceScore::kLaplace: return "Laplace";
    case nn::PlaceScore::kDot: return "dot product";
    default: return "several heads";
  }
}

models::Measurements measurements_of(const data::StationField& field) { return {field.places, field.source, field.value, field.error, {}}; }

LearnedField learn_station_field(const FieldLearning& options, uint64_t seed) {
  const OneThread one_thread;
  LearnedField learned;
  learned.network = train(options, seed, {});
  learned.score = score_on_fresh(learned.network, options.field, seed);
  return learned;
}

SatelliteScore learn_satellite(uint64_t seed, int64_t steps) {
  const OneThread one_thread;
  FieldLearning stations;
  stations.steps = steps, stations.layers = 2, stations.field.stations = 24;
  FieldLearning both = stations;
  both.field.grid = 4, both.field.grid_error = 0.1;
  auto errors = at::detail::createCPUGenerator(seed + 1);
  auto alone = train(stations, seed, {});
  // Errors from 0.05 to 2, evenly in their logarithm.
  auto fused = train(both, seed, [&] { return 0.05 * std::pow(40.0, torch::rand({1}, errors).item<double>()); });
  SatelliteScore s;
  const auto of_both = score_on_fresh(fused, both.field, seed);
  s.with = of_both.error, s.exact_with = of_both.exact, s.bias = both.field.grid_bias;
  s.offset = (fused->offset[2] - fused->offset.slice(0, 0, 2).mean()).item<double>();
  {  // The same fields, the satellite's cells missing.
    auto generator = at::detail::createCPUGenerator(seed + 0x5EED);
    auto field = data::draw_station_fields(both.field, kFresh, false, generator);
    torch::NoGradGuard no_grad;
    const auto cut = [&](const torch::Tensor& t) { return t.slice(1, 0, both.field.stations); };
    const models::Measurements only{cut(field.places), cut(field.source), cut(field.value), cut(field.error), {}};
    s.without = root_mean_square(alone(only, targets_of(field)).mean - field.truth);
  }
  for (const double told : {0.05, 0.1, 0.2, 0.4, 0.8, 1.6}) {
    auto generator = at::detail::createCPUGenerator(seed + 0x5EED);
    data::StationFieldOptions options = both.field;
    options.grid_error = told;
    const auto field = data::draw_station_fields(options, 64, false, generator);
    const auto weights = fused->weights(measurements_of(field), targets_of(field)).abs();
    s.told.push_back(told);
    s.weight.push_back((weights.slice(2, options.stations).sum(2) / weights.sum(2)).mean().item<double>());
  }
  return s;
}

}  // namespace fovea::recipes
