#include "fovea/recipes/station_fusion.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"
#include "fovea/io/csv.h"
#include "fovea/models/seeded_generator.h"
#include "fovea/recipes/air_stations.h"
#include "fovea/recipes/kriging.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace {
constexpr double kKmOfPlaceUnit = 100, kLeastMean = 0.05;
constexpr int64_t kLeastStations = 5, kBatch = 32;
const double kNan = std::numeric_limits<double>::quiet_NaN();

torch::Tensor indices(const std::vector<int64_t>& of) { return torch::tensor(of, torch::kInt64); }

// Table, options and what follows from them.
struct Problem {
  const StationTable& table;
  const StationFusionOptions& options;
  torch::Tensor distance;   // [S,S] km
  torch::Tensor places;     // [S,D] f32, 100 km and time 0
  torch::Tensor slope;      // [K] f64, least squares over training times
  double unit = 1;          // of kPlain: deviation of what the slope leaves
  Variogram variogram, log_variogram;
  std::vector<int64_t> train, test;  // times

  bool root() const { return options.scale == ValueScale::kRoot; }
  // Stations with a value at time t, of those kept.
  std::vector<int64_t> present(int64_t t, const std::vector<bool>& kept) const {
    std::vector<int64_t> found;
    const auto row = table.values.accessor<double, 2>()[t];
    for (int64_t s = 0; s < row.size(0); ++s)
      if (kept[size_t(s)] && !std::isnan(row[s])) found.push_back(s);
    return found;
  }
};

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

torch::Tensor residuals(const Problem& p, int64_t t, const torch::Tensor& of) {
  auto y = p.table.values[t].index_select(0, of);
  if (p.table.covariates.size(2) > 0) y = y - torch::matmul(p.table.covariates[t].index_select(0, of).to(torch::kFloat64), p.slope);
  return y;
}

Problem make_problem(const StationTable& table, const StationFusionOptions& options) {
  Problem p{table, options, station_distances(table.places_km), {}, {}, 1, {}, {}, {}, {}};
  const std::vector<bool> all(table.names.size(), true);
  if (table.names.size() < size_t(kLeastStations)) throw ArgumentError("stations: " + std::to_string(table.names.size()) + " stations, expected 5 or more");
  for (int64_t t = 0; t < int64_t(table.times.size()); ++t)
    if (int64_t(p.present(t, all).size()) >= kLeastStations) (t < table.first_test ? p.train : p.test).push_back(t);
  if (p.train.empty() || p.test.empty()) throw ArgumentError("stations: no time with 5 stations for training, or none for testing");
  p.places = torch::cat({table.places_km / kKmOfPlaceUnit, torch::zeros({table.places_km.size(0), 1}, torch::kFloat64)}, 1).to(torch::kFloat32);
  p.slope = least_squares_slope(table, p.train);
  std::vector<std::pair<torch::Tensor, torch::Tensor>> plain, logarithm;
  double squares = 0, count = 0;
  for (const int64_t t : p.train) {
    const auto of = indices(p.present(t, all));
    const auto d = p.distance.index_select(0, of).index_select(1, of), y = residuals(p, t, of);
    plain.emplace_back(d, y), squares += (y - y.mean()).square().sum().item<double>(), count += double(of.numel());
    if (p.root()) logarithm.emplace_back(d, y.log1p());
  }
  p.unit = std::sqrt(squares / count);
  p.variogram = fit_variogram(plain);
  if (p.root()) p.log_variogram = fit_variogram(logarithm);
  return p;
}

// A batch at time t: each target station told by the nearest others of `stations`. Values are in units in which they are about 1.
struct LeftOutBatch {
  models::Measurements measured;
  models::Targets targets;
  torch::Tensor others;       // [B,M] stations
  torch::Tensor truth, unit;  // [B] in the table's unit; what to multiply with
};

LeftOutBatch left_out(const Problem& p, int64_t t, const std::vector<int64_t>& stations, const std::vector<int64_t>& targets) {
  const auto of = indices(stations), at = indices(targets);
  const int64_t B = at.numel(), M = std::min(p.options.nearest, of.numel() - 1);
  LeftOutBatch b;
  const auto apart = p.distance.index_select(0, at).index_select(1, of).masked_fill(of.unsqueeze(0) == at.unsqueeze(1), INFINITY);
  b.others = of.index_select(0, std::get<1>(apart.sort(1, /*descending=*/false)).slice(1, 0, M).flatten()).view({B, M});
  const auto each = [&](const torch::Tensor& table) { return table.index_select(0, b.others.flatten()).unflatten(0, {B, M}); };
  b.truth = p.table.values[t].index_select(0, at);
  const auto value = each(p.table.values[t]);
  b.unit = p.root() ? value.mean(1).clamp_min(kLeastMean) : torch::full({B}, p.unit, torch::kFloat64);
  b.measured = {each(p.places), each(p.table.source), (value / b.unit.unsqueeze(1)).to(torch::kFloat32), {}, each(p.table.covariates[t])};
  b.targets = {p.places.index_select(0, at).unsqueeze(1), p.table.source.index_select(0, at).unsqueeze(1), p.table.covariates[t].index_select(0, at).unsqueeze(1)};
  if (p.root()) {  // the level of the day: the same at all places, so it moves the variance alone
    const auto level = b.unit.log().to(torch::kFloat32).view({B, 1, 1});
    b.measured.covariates = torch::cat({b.measured.covariates, level.expand({B, M, 1})}, 2);
    b.targets.covariates = torch::cat({b.targets.covariates, level}, 2);
  }
  return b;
}

// Means in the table's unit, and the likelihood on the scale on which errors are normal.
struct Judged {
  torch::Tensor mean, nll, covered;  // [B]
};
Judged judge(const Problem& p, const LeftOutBatch& b, const models::FusedField& fused) {
  const auto variance = fused.log_variance.squeeze(1).to(torch::kFloat64).exp();
  Judged j;
  j.mean = fused.mean.squeeze(1).to(torch::kFloat64) * b.unit;
  auto truth = b.truth, centre = j.mean, spread = variance * p.unit * p.unit, jacobian = torch::zeros_like(truth);
  if (p.root()) {
    j.mean = j.mean.clamp_min(0), truth = (1 + b.truth).sqrt();
    centre = (1 + j.mean - variance).clamp_min(0.25).sqrt(), spread = variance, jacobian = (2 * truth).log();
  }
  j.nll = (std::log(2 * M_PI) + spread.log() + (truth - centre).square() / spread) / 2 + jacobian;
  j.covered = ((truth - centre).abs() <= 1.96 * spread.sqrt()).to(torch::kFloat64);
  return j;
}

std::vector<int64_t> drawn(const std::vector<int64_t>& from, int64_t count, Rng& rng) {
  std::vector<int64_t> some = from;
  for (size_t i = 0; i < some.size() && int64_t(i) < count; ++i) std::swap(some[i], some[i + rng.below(some.size() - i)]);
  some.resize(std::min(some.size(), size_t(count)));
  return some;
}

template <class Loss>
void train(const std::vector<torch::Tensor>& parameters, double rate, int64_t steps, const Loss& loss_of_step) {
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

models::StationFusionConfig config_of(const Problem& p) {
  models::StationFusionConfig config;
  config.axes = p.places.size(1), config.sources = p.table.source.max().item<int64_t>() + 1;
  config.covariates = p.table.covariates.size(2) + (p.root() ? 1 : 0);
  return config;
}

// The mean of fields with the variogram, at the places of the stations of training times: no measured value is used.
models::StationFusion learn_simulated(const Problem& p, uint64_t seed) {
  const models::SeededGenerator seeded(seed);
  auto generator = at::detail::createCPUGenerator(seed);
  models::StationFusion network(config_of(p));
  const std::vector<bool> all(p.table.names.size(), true);
  const double nugget = p.variogram.nugget / p.variogram.sill;
  train(network->parameters(), 1e-2, p.options.simulated_steps, [&](int64_t step) {
    Rng rng(seed, 1, uint32_t(step));
    const int64_t t = p.train[rng.below(p.train.size())];
    const auto here = p.present(t, all);
    const auto stations = drawn(here, std::max(kLeastStations, int64_t(double(here.size()) * rng.uniform(0.6f, 1))), rng);
    std::vector<int64_t> targets;
    for (int64_t b = 0; b < kBatch; ++b) targets.push_back(stations[rng.below(stations.size())]);
    auto batch = left_out(p, t, stations, targets);
    const auto of = indices(stations);
    const auto K = (-p.distance.index_select(0, of).index_select(1, of) / p.variogram.range_km).exp();
    const auto root = torch::linalg_cholesky(K + (nugget + 1e-6) * torch::eye(K.size(0), K.options()));
    const auto field = torch::matmul(torch::randn({kBatch, K.size(0)}, generator, K.options()), root.t()).to(torch::kFloat32);
    // Columns of the field: where each station stands among those drawn.
    auto column = torch::zeros({int64_t(p.table.names.size())}, torch::kInt64);
    column.index_put_({of}, torch::arange(of.numel()));
    batch.measured.value = field.gather(1, column.index_select(0, batch.others.flatten()).view_as(batch.others));
    const auto truth = field.gather(1, column.index_select(0, indices(targets)).unsqueeze(1)).squeeze(1);
    batch.measured.covariates = torch::zeros_like(batch.measured.covariates), batch.targets.covariates = torch::zeros_like(batch.targets.covariates);
    return (network(batch.measured, batch.targets).mean.squeeze(1) - truth).square().mean();
  });
  return network;
}

void learn_real(const Problem& p, models::StationFusion& network, const std::vector<bool>& kept, uint64_t seed) {
  std::vector<torch::Tensor> parameters;
  for (auto& named : network->named_parameters())
    if (named.key() == "offset" || named.key() == "slope" || named.key() == "source" || named.key().rfind("variance", 0) == 0) parameters.push_back(named.value());
  train(parameters, 1e-2, p.options.real_steps, [&](int64_t step) {
    Rng rng(seed, 2, uint32_t(step));
    std::vector<int64_t> here;
    int64_t t = 0;
    while (int64_t(here.size()) < kLeastStations) t = p.train[rng.below(p.train.size())], here = p.present(t, kept);
    const auto stations = drawn(here, std::max(kLeastStations, int64_t(double(here.size()) * rng.uniform(0.7f, 1))), rng);
    const auto batch = left_out(p, t, stations, drawn(stations, kBatch, rng));
    return judge(p, batch, network(batch.measured, batch.targets)).nll.mean();
  });
}

LeftOutStations::Ratio bootstrap(const std::vector<std::array<double, 3>>& sums, uint64_t seed, const std::function<double(double, double, double)>& of) {
  const auto once = [&](const auto& place) {
    double a = 0, b = 0, n = 0;
    for (size_t i = 0; i < sums.size(); ++i) {
      const auto& of_time = sums[place(i)];
      a += of_time[0], b += of_time[1], n += of_time[2];
    }
    return of(a, b, n);
  };
  std::vector<double> draws;
  for (uint32_t r = 0; r < 1000; ++r) {
    Rng rng(seed, 3, r);
    draws.push_back(once([&](size_t) { return size_t(rng.below(sums.size())); }));
  }
  std::sort(draws.begin(), draws.end());
  return {once([](size_t i) { return i; }), draws[25], draws[974]};
}
}  // namespace

LeftOutStations leave_stations_out(const StationTable& table, const StationFusionOptions& options, uint64_t seed,
                                   const std::function<void(int64_t, models::StationFusion&)>& shown) {
  const OneThread one_thread;
  const Problem p = make_problem(table, options);
  const auto S = int64_t(table.names.size());
  std::vector<int64_t> everyone(static_cast<size_t>(S));
  for (int64_t s = 0; s < S; ++s) everyone[size_t(s)] = s;
  Rng shuffle(seed, 0, 0);
  const auto order = drawn(everyone, S, shuffle);
  std::vector<int64_t> fold_of(static_cast<size_t>(S));
  for (int64_t i = 0; i < S; ++i) fold_of[size_t(order[size_t(i)])] = i % options.folds;

  const auto simulated = learn_simulated(p, seed);
  std::vector<models::StationFusion> networks;
  for (int64_t f = 0; f < options.folds; ++f) {
    const models::SeededGenerator seeded(seed);
    models::StationFusion network(config_of(p));
    std::vector<bool> kept(static_cast<size_t>(S));
    for (int64_t s = 0; s < S; ++s) kept[size_t(s)] = fold_of[size_t(s)] != f;
    {
      torch::NoGradGuard no_grad;
      const auto from = simulated->named_parameters();
      for (auto& named : network->named_parameters()) named.value().copy_(from[named.key()]);
      for (int64_t k = 0; k < p.slope.numel(); ++k) network->slope[k] = p.slope[k].item<double>() / (p.root() ? 1 : p.unit);
    }
    learn_real(p, network, kept, seed + uint64_t(f));
    networks.push_back(network);
    if (shown) shown(f, network);
  }

  torch::NoGradGuard no_grad;
  LeftOutStations r;
  const std::vector<bool> all(static_cast<size_t>(S), true);
  std::vector<std::array<double, 3>> with_kriging, with_kernel, likelihoods, log_likelihoods;
  double covered = 0, log_kriging = 0, inverse_distance = 0, mean = 0;
  for (size_t i = 0; i < p.test.size(); i += size_t(options.test_every)) {
    const int64_t t = p.test[i];
    const auto here = p.present(t, all);
    const auto of = indices(here);
    const auto values = table.values[t].index_select(0, of), d = p.distance.index_select(0, of).index_select(1, of);
    // Baselines on what a line in elevation leaves, fitted at this time, the left-out value in it.
    auto line = torch::zeros_like(values);
    if (options.elevation) {
      const auto x = table.covariates[t].index_select(0, of).select(1, 0).to(torch::kFloat64), centred = x - x.mean();
      line = centred * ((centred * values).sum() / centred.square().sum());
    }
    const auto flat = values - line;
    const auto squared = [&](const torch::Tensor& predicted) { return (predicted + line - values).square().sum().item<double>(); };
    const Kriged kriged = krige_others(d, flat, p.variogram);
    const double kriging = squared(kriged.mean), kernel = squared(weighted_others((-d.square() / (2 * options.kernel_km * options.kernel_km)).exp() + 1e-300, flat));
    const auto normal_nll = [](const torch::Tensor& truth, const Kriged& k) { return (std::log(2 * M_PI) + k.variance.log() + (truth - k.mean).square() / k.variance) / 2; };
    double kriging_nll = normal_nll(flat, kriged).sum().item<double>(), log_nll = kriging_nll;
    if (p.root()) {
      const auto logs = values.log1p();
      const Kriged k = krige_others(d, logs, p.log_variogram);
      log_nll = (normal_nll(logs, k) + logs).sum().item<double>();
      log_kriging += squared((k.mean + k.variance / 2).exp() - 1);
    }
    inverse_distance += squared(weighted_others(d.pow(-2), flat)), mean += squared(weighted_others(torch::ones_like(d), flat));

    double fusion = 0, fusion_nll = 0;
    for (int64_t f = 0; f < options.folds; ++f) {
      std::vector<int64_t> targets;
      for (const int64_t s : here)
        if (fold_of[size_t(s)] == f) targets.push_back(s);
      if (targets.empty()) continue;
      const auto batch = left_out(p, t, here, targets);
      const Judged j = judge(p, batch, networks[size_t(f)](batch.measured, batch.targets));
      fusion += (j.mean - batch.truth).square().sum().item<double>(), fusion_nll += j.nll.sum().item<double>(), covered += j.covered.sum().item<double>();
    }
    const auto n = double(here.size());
    with_kriging.push_back({fusion, kriging, n}), with_kernel.push_back({fusion, kernel, n});
    likelihoods.push_back({fusion_nll, kriging_nll, n}), log_likelihoods.push_back({fusion_nll, log_nll, n});
    ++r.times, r.values += int64_t(here.size());
  }
  const auto n = double(r.values);
  const auto total = [](const std::vector<std::array<double, 3>>& sums, int which) {
    double sum = 0;
    for (const auto& s : sums) sum += s[size_t(which)];
    return sum;
  };
  r.fusion = std::sqrt(total(with_kriging, 0) / n), r.kriging = std::sqrt(total(with_kriging, 1) / n), r.kernel = std::sqrt(total(with_kernel, 1) / n);
  r.log_kriging = p.root() ? std::sqrt(log_kriging / n) : r.kriging, r.inverse_distance = std::sqrt(inverse_distance / n), r.mean = std::sqrt(mean / n);
  r.fusion_nll = total(likelihoods, 0) / n, r.kriging_nll = total(likelihoods, 1) / n, r.log_kriging_nll = total(log_likelihoods, 1) / n;
  r.covered = 100 * covered / n;
  const auto ratio = [](double a, double b, double) { return std::sqrt(a / b); };
  r.over_kriging = bootstrap(with_kriging, seed, ratio), r.over_kernel = bootstrap(with_kernel, seed, ratio);
  r.nll_gain = bootstrap(r.kriging_nll < r.log_kriging_nll ? likelihoods : log_likelihoods, seed, [](double a, double b, double count) { return (b - a) / count; });
  return r;
}

namespace {
// A table of measurements, one row each.
StationTable table_of(const std::filesystem::path& path, const std::vector<std::string>& time, const std::vector<std::string>& station, const std::vector<std::array<double, 3>>& place,
                      const std::vector<double>& value) {
  StationTable table;
  std::map<std::string, int64_t> row_of, column_of;
  for (const auto& t : time) row_of.emplace(t, 0);
  for (auto& [t, row] : row_of) row = int64_t(table.times.size()), table.times.push_back(t);
  std::vector<double> places;
  for (size_t i = 0; i < station.size(); ++i) {
    if (!std::isfinite(place[i][0])) throw IoError(path, "station " + station[i] + " at " + time[i] + " has no longitude or latitude");
    if (column_of.emplace(station[i], int64_t(table.names.size())).second) table.names.push_back(station[i]), places.insert(places.end(), place[i].begin(), place[i].end());
  }
  const auto S = int64_t(table.names.size()), T = int64_t(table.times.size());
  table.places_km = torch::tensor(places, torch::kFloat64).view({S, 3});
  table.source = torch::zeros({S}, torch::kInt64), table.values = torch::full({T, S}, kNan, torch::kFloat64), table.covariates = torch::zeros({T, S, 0});
  auto values = table.values.accessor<double, 2>();
  for (size_t i = 0; i < station.size(); ++i) {
    double& cell = values[row_of.at(time[i])][column_of.at(station[i])];
    if (!std::isnan(cell)) throw IoError(path, "station " + station[i] + " has two values at " + time[i] + ", expected one");
    cell = value[i];
  }
  return table;
}

std::vector<std::string> texts(const io::CsvTable& csv, std::string_view column) {
  const size_t c = csv.column(column);
  std::vector<std::string> all;
  for (size_t r = 0; r < csv.rows(); ++r) all.push_back(csv.cell(r, c));
  return all;
}

StationTable read_table(const std::filesystem::path& path, const io::CsvTable& csv, const std::vector<std::string>& time, std::string_view value) {
  const auto longitude = csv.numbers(csv.column("longitude_deg")), latitude = csv.numbers(csv.column("latitude_deg"));
  std::vector<std::array<double, 3>> place;
  for (size_t r = 0; r < csv.rows(); ++r) place.push_back(place_km(longitude[r], latitude[r]));
  return table_of(path, time, texts(csv, "station"), place, csv.numbers(csv.column(value)));
}

int64_t first_from(const std::vector<std::string>& times, const std::string& from) { return std::lower_bound(times.begin(), times.end(), from) - times.begin(); }
}  // namespace

StationTable read_air(const std::filesystem::path& path) {
  const io::CsvTable csv = io::read_csv(path);
  StationTable table = read_table(path, csv, texts(csv, "date"), "pm10_ug_m3");
  for (size_t s = 0; s < table.names.size(); ++s) table.source[int64_t(s)] = table.names[s].rfind("DEUB", 0) == 0 ? 1 : 0;
  table.first_test = first_from(table.times, "2005");
  return table;
}

StationTable read_colorado(const std::filesystem::path& path) {
  const io::CsvTable csv = io::read_csv(path);
  StationTable table = read_table(path, csv, texts(csv, "month"), "tmax_c");
  const auto T = int64_t(table.times.size()), S = int64_t(table.names.size());
  std::map<std::string, double> elevation;
  const auto metres = csv.numbers(csv.column("elevation_m"));
  const auto station = texts(csv, "station");
  for (size_t r = 0; r < csv.rows(); ++r) elevation[station[r]] = metres[r] / 1000;
  table.covariates = torch::zeros({T, S, 3});
  auto at = table.covariates.accessor<float, 3>();
  for (int64_t t = 0; t < T; ++t) {
    const double angle = 2 * M_PI * std::stod(table.times[size_t(t)].substr(5)) / 12;
    for (int64_t s = 0; s < S; ++s) {
      const double km = elevation[table.names[size_t(s)]];
      at[t][s][0] = float(km), at[t][s][1] = float(km * std::sin(angle)), at[t][s][2] = float(km * std::cos(angle));
    }
  }
  table.first_test = first_from(table.times, "1980");
  return table;
}

}  // namespace fovea::recipes
