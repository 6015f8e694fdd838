#include "fovea/recipes/station_learning.h"

#include <algorithm>
#include <cmath>

#include "fovea/core/error.h"
#include "fovea/models/seeded_generator.h"

namespace fovea::recipes {

using data::StationTable;

namespace {
constexpr double kKmOfPlaceUnit = 100, kLeastMean = 0.05;
constexpr int64_t kBatch = 32;

torch::Tensor indices(const std::vector<int64_t>& of) { return torch::tensor(of, torch::kInt64); }

// Slopes of values in covariates once every time's means are taken off; the smallest ones where covariates do not vary.
torch::Tensor least_squares_slope(const StationTable& table, const std::vector<int64_t>& times) {
  const int64_t K = table.covariates.size(2);
  auto xx = torch::zeros({K, K}, torch::kFloat64), xy = torch::zeros({K}, torch::kFloat64);
  if (K == 0) return xy;
  for (const int64_t t : times) {
    const auto there = table.values[t].isnan().logical_not().nonzero().flatten();
    if (there.numel() < 2) continue;
    auto x = table.covariates[t].index_select(0, there).to(torch::kFloat64), y = table.values[t].index_select(0, there);
    x = x - x.mean(0), y = y - y.mean();
    xx += torch::matmul(x.t(), x), xy += torch::matmul(x.t(), y);
  }
  return torch::matmul(torch::linalg_pinv(xx, 1e-9, /*hermitian=*/true), xy);
}

torch::Tensor residuals(const StationProblem& p, int64_t t, const torch::Tensor& of) {
  auto y = p.table.values[t].index_select(0, of);
  if (p.table.covariates.size(2) > 0)
    y = y - torch::matmul(p.table.covariates[t].index_select(0, of).to(torch::kFloat64), p.slope);
  return y;
}

std::vector<int64_t> drawn(const std::vector<int64_t>& from, int64_t count, Rng& rng) {
  std::vector<int64_t> some = from;
  for (size_t i = 0; i < some.size() && int64_t(i) < count; ++i)
    std::swap(some[i], some[i + rng.below(some.size() - i)]);
  some.resize(std::min(some.size(), size_t(count)));
  return some;
}

std::vector<int64_t> drawn_share(const std::vector<int64_t>& from, float least, Rng& rng) {
  return drawn(from, std::max(kLeastStations, int64_t(double(from.size()) * rng.uniform(least, 1))), rng);
}
}  // namespace

std::vector<int64_t> present_stations(const StationTable& table, int64_t t, const std::vector<bool>& kept) {
  std::vector<int64_t> found;
  const auto row = table.values.accessor<double, 2>()[t];
  for (int64_t s = 0; s < row.size(0); ++s)
    if ((kept.empty() || kept[size_t(s)]) && !std::isnan(row[s])) found.push_back(s);
  return found;
}

StationBatch ask_stations(const StationTable& table, const StationScaling& scaling, int64_t t,
                          const std::vector<int64_t>& stations, const std::vector<int64_t>& targets) {
  const auto of = indices(stations), at = indices(targets);
  const auto self = of.unsqueeze(0) == at.unsqueeze(1);
  const int64_t B = at.numel(), others = of.numel() - (self.any().item<bool>() ? 1 : 0),
                M = std::min(scaling.nearest, others);
  if (M < 1) throw ArgumentError("stations: nobody else has a value at " + table.times[size_t(t)]);
  StationBatch b;
  const auto apart =
      torch::cdist(table.places_km.index_select(0, at), table.places_km.index_select(0, of), 2.0, /*compute_mode=*/2)
          .masked_fill(self, INFINITY);
  b.others = of.index_select(0, std::get<1>(apart.sort(1, /*descending=*/false)).slice(1, 0, M).flatten()).view({B, M});
  const auto place = [](const torch::Tensor& km) {  // 100 km, and time 0
    return torch::cat({km / kKmOfPlaceUnit, torch::zeros({km.size(0), 1}, torch::kFloat64)}, 1).to(torch::kFloat32);
  };
  const auto each = [&](const torch::Tensor& of_station) { return of_station.index_select(0, b.others.flatten()); };
  b.truth = table.values[t].index_select(0, at);
  const auto value = each(table.values[t]).view({B, M});
  b.unit = scaling.root() ? value.mean(1).clamp_min(kLeastMean) : torch::full({B}, scaling.unit, torch::kFloat64);
  b.measured = {place(each(table.places_km)).unflatten(0, {B, M}),
                each(table.source).view({B, M}),
                (value / b.unit.unsqueeze(1)).to(torch::kFloat32),
                {},
                each(table.covariates[t]).unflatten(0, {B, M})};
  b.targets = {place(table.places_km.index_select(0, at)).unsqueeze(1), table.source.index_select(0, at).unsqueeze(1),
               table.covariates[t].index_select(0, at).unsqueeze(1)};
  if (scaling.root()) {  // the level of the time: the same at all places, so it moves the variance alone
    const auto level = b.unit.log().to(torch::kFloat32).view({B, 1, 1});
    b.measured.covariates = torch::cat({b.measured.covariates, level.expand({B, M, 1})}, 2);
    b.targets.covariates = torch::cat({b.targets.covariates, level}, 2);
  }
  return b;
}

StationAnswer answer_stations(const StationScaling& scaling, const StationBatch& b, const models::FusedField& fused) {
  StationAnswer a;
  a.variance = fused.log_variance.squeeze(1).to(torch::kFloat64).exp();
  a.mean = a.centre = fused.mean.squeeze(1).to(torch::kFloat64) * b.unit;
  if (scaling.root()) {
    a.mean = a.mean.clamp_min(0);
    a.centre = (1 + a.mean - a.variance).clamp_min(0.25).sqrt();
  } else {
    a.variance = a.variance * scaling.unit * scaling.unit;
  }
  const auto half = 1.96 * a.variance.sqrt();
  a.low = a.centre - half, a.high = a.centre + half;
  if (scaling.root()) a.low = a.low.clamp_min(1).square() - 1, a.high = a.high.clamp_min(1).square() - 1;
  return a;
}

torch::Tensor station_nll(const StationScaling& scaling, const StationBatch& b, const StationAnswer& a) {
  auto truth = b.truth, jacobian = torch::zeros_like(truth);
  if (scaling.root()) truth = (1 + truth).sqrt(), jacobian = (2 * truth).log();
  return (std::log(2 * M_PI) + a.variance.log() + (truth - a.centre).square() / a.variance) / 2 + jacobian;
}

StationProblem make_station_problem(const StationTable& table, ValueScale scale, int64_t nearest) {
  StationProblem p{table, {scale, 1, nearest}, station_distances(table.places_km), {}, {}, {}, {}, {}};
  if (int64_t(table.names.size()) < kLeastStations)
    throw ArgumentError("stations: " + std::to_string(table.names.size()) + " stations, expected 5 or more");
  for (int64_t t = 0; t < int64_t(table.times.size()); ++t)
    if (int64_t(present_stations(table, t).size()) >= kLeastStations)
      (t < table.first_test ? p.train : p.test).push_back(t);
  if (p.train.empty() || p.test.empty())
    throw ArgumentError("stations: no time with 5 stations for training, or none for testing");
  if (p.scaling.root() && (table.values < 0).any().item<bool>())
    throw ArgumentError("stations: a value is below 0, but scale is root, for concentrations; set scale=plain");
  p.slope = least_squares_slope(table, p.train);
  std::vector<std::pair<torch::Tensor, torch::Tensor>> plain, logarithm;
  double squares = 0, count = 0;
  for (const int64_t t : p.train) {
    const auto of = indices(present_stations(table, t));
    const auto d = p.distance.index_select(0, of).index_select(1, of), y = residuals(p, t, of);
    plain.emplace_back(d, y), squares += (y - y.mean()).square().sum().item<double>(), count += double(of.numel());
    if (p.scaling.root()) logarithm.emplace_back(d, y.log1p());
  }
  p.scaling.unit = std::sqrt(squares / count);
  if (!(p.scaling.unit > 0))
    throw ArgumentError("stations: all values of a time are the same at every time; there is nothing to learn");
  p.variogram = fit_variogram(plain);
  if (p.scaling.root()) p.log_variogram = fit_variogram(logarithm);
  return p;
}

models::StationFusionConfig station_network_config(const StationProblem& p, models::StationFusionConfig config) {
  config.axes = p.table.places_km.size(1) + 1, config.sources = p.table.source.max().item<int64_t>() + 1;
  config.covariates = p.table.covariates.size(2) + (p.scaling.root() ? 1 : 0);
  return config;
}

models::StationFusion learn_simulated_fields(const StationProblem& p, const models::StationFusionConfig& config,
                                             int64_t steps, uint64_t seed, const std::function<void()>& after_step) {
  const models::SeededGenerator seeded(seed);
  auto generator = at::detail::createCPUGenerator(seed);
  models::StationFusion network(config);
  const double nugget = p.variogram.nugget / p.variogram.sill;
  learn(network->parameters(), 1e-2, steps, [&](int64_t step) {
    Rng rng(seed, 1, uint32_t(step));
    const int64_t t = p.train[rng.below(p.train.size())];
    const auto stations = drawn_share(present_stations(p.table, t), 0.6f, rng);
    std::vector<int64_t> targets;
    for (int64_t b = 0; b < kBatch; ++b) targets.push_back(stations[rng.below(stations.size())]);
    auto batch = ask_stations(p.table, p.scaling, t, stations, targets);
    const auto of = indices(stations);
    const auto K = (-p.distance.index_select(0, of).index_select(1, of) / p.variogram.range_km).exp();
    const auto root = torch::linalg_cholesky(K + (nugget + 1e-6) * torch::eye(K.size(0), K.options()));
    const auto field =
        torch::matmul(torch::randn({kBatch, K.size(0)}, generator, K.options()), root.t()).to(torch::kFloat32);
    // Columns of the field: where each station stands among those drawn.
    auto column = torch::zeros({int64_t(p.table.names.size())}, torch::kInt64);
    column.index_put_({of}, torch::arange(of.numel()));
    batch.measured.value = field.gather(1, column.index_select(0, batch.others.flatten()).view_as(batch.others));
    const auto truth = field.gather(1, column.index_select(0, indices(targets)).unsqueeze(1)).squeeze(1);
    batch.measured.covariates = torch::zeros_like(batch.measured.covariates),
    batch.targets.covariates = torch::zeros_like(batch.targets.covariates);
    if (after_step) after_step();
    return (network(batch.measured, batch.targets).mean.squeeze(1) - truth).square().mean();
  });
  torch::NoGradGuard no_grad;
  for (int64_t k = 0; k < p.slope.numel(); ++k)
    network->slope[k] = p.slope[k].item<double>() / (p.scaling.root() ? 1 : p.scaling.unit);
  return network;
}

bool learns_from_measurements(const std::string& parameter) {
  return parameter == "offset" || parameter == "slope" || parameter == "source" || parameter.rfind("variance", 0) == 0;
}

torch::Tensor station_loss(const StationProblem& p, models::StationFusion& network, const std::vector<int64_t>& times,
                           const std::vector<bool>& kept, int64_t batch_size, Rng& rng) {
  std::vector<int64_t> here;
  int64_t t = 0;
  while (int64_t(here.size()) < kLeastStations)
    t = times[rng.below(times.size())], here = present_stations(p.table, t, kept);
  const auto stations = drawn_share(here, 0.7f, rng);
  const auto batch = ask_stations(p.table, p.scaling, t, stations, drawn(stations, batch_size, rng));
  return station_nll(p.scaling, batch, answer_stations(p.scaling, batch, network(batch.measured, batch.targets)))
      .mean();
}

void learn(const std::vector<torch::Tensor>& parameters, double rate, int64_t steps,
           const std::function<torch::Tensor(int64_t)>& loss_of_step) {
  if (steps == 0) return;
  torch::optim::Adam optimizer(parameters, torch::optim::AdamOptions(rate));
  for (int64_t step = 0; step < steps; ++step) {
    static_cast<torch::optim::AdamOptions&>(optimizer.param_groups()[0].options())
        .lr(rate * std::min(1.0, double(step + 1) / 50) * (1 + std::cos(M_PI * double(step) / double(steps))) / 2);
    optimizer.zero_grad();
    loss_of_step(step).backward();
    torch::nn::utils::clip_grad_norm_(parameters, 1.0);
    optimizer.step();
  }
}

}  // namespace fovea::recipes
