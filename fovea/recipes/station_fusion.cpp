#include "fovea/recipes/station_fusion.h"

#include <algorithm>
#include <cmath>

#include "fovea/models/seeded_generator.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

using data::StationTable;

namespace {
constexpr int64_t kBatch = 32;

models::StationFusion copy_of(models::StationFusion& network, const models::StationFusionConfig& config,
                              uint64_t seed) {
  const models::SeededGenerator seeded(seed);
  models::StationFusion copy(config);
  torch::NoGradGuard no_grad;
  const auto from = network->named_parameters();
  for (auto& named : copy->named_parameters()) named.value().copy_(from[named.key()]);
  return copy;
}

int64_t first_from(const std::vector<std::string>& times, const std::string& from) {
  return std::lower_bound(times.begin(), times.end(), from) - times.begin();
}
}  // namespace

LeftOutStations leave_stations_out(const StationTable& table, const StationFusionOptions& options, uint64_t seed,
                                   const std::function<void(int64_t, models::StationFusion&)>& shown) {
  const OneThread one_thread;
  const StationProblem p = make_station_problem(table, options.scale, options.nearest);
  const auto config = station_network_config(p);
  const auto fold_of = station_folds(int64_t(table.names.size()), options.folds, seed);
  auto simulated = learn_simulated_fields(p, config, options.simulated_steps, seed);
  std::vector<models::StationFusion> networks;
  for (int64_t f = 0; f < options.folds; ++f) {
    auto network = copy_of(simulated, config, seed);
    std::vector<bool> kept;
    for (const int64_t fold : fold_of) kept.push_back(fold != f);
    std::vector<torch::Tensor> parameters;
    for (auto& named : network->named_parameters())
      if (learns_from_measurements(named.key())) parameters.push_back(named.value());
    learn(parameters, 1e-2, options.real_steps, [&](int64_t step) {
      Rng rng(seed + uint64_t(f), 2, uint32_t(step));
      return station_loss(p, network, p.train, kept, kBatch, rng);
    });
    networks.push_back(network);
    if (shown) shown(f, network);
  }
  return score_left_out(p, networks, fold_of, {options.kernel_km, options.test_every, seed, nullptr, {}});
}

StationTable read_air(const std::filesystem::path& path) {
  data::StationColumns columns;
  columns.time = "date", columns.value = "pm10_ug_m3";
  StationTable table = data::read_stations({path}, columns);
  for (size_t s = 0; s < table.names.size(); ++s)
    table.source[int64_t(s)] = table.names[s].rfind("DEUB", 0) == 0 ? 1 : 0;
  table.first_test = first_from(table.times, "2005");
  return table;
}

StationTable read_colorado(const std::filesystem::path& path) {
  data::StationColumns columns;
  columns.time = "month", columns.value = "tmax_c", columns.covariates = {"elevation_m"};
  StationTable table = data::read_stations({path}, columns);
  std::vector<double> sine, cosine;
  for (const std::string& month : table.times) {
    const double angle = 2 * M_PI * std::stod(month.substr(5)) / 12;
    sine.push_back(std::sin(angle)), cosine.push_back(std::cos(angle));
  }
  const auto km = table.covariates.select(2, 0).to(torch::kFloat64) / 1000;
  const auto times = [&](const std::vector<double>& of_time) {
    return km * torch::tensor(of_time, torch::kFloat64).unsqueeze(1);
  };
  table.covariates = torch::stack({km, times(sine), times(cosine)}, 2).to(torch::kFloat32).contiguous();
  table.first_test = first_from(table.times, "1980");
  return table;
}

}  // namespace fovea::recipes
