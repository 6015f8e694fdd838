#include "fovea/recipes/station_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "fovea/core/error.h"
#include "fovea/core/progress.h"
#include "fovea/infer/model_folder.h"
#include "fovea/infer/weights.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/config.h"
#include "fovea/io/csv.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace fs = std::filesystem;

namespace {
constexpr int64_t kToldAtOnce = 256;
constexpr const char* kLow = "_low";
constexpr const char* kHigh = "_high";
}  // namespace

void StationInputs::standardise(data::StationTable& table) const {
  for (size_t k = 0; k < mean.size(); ++k) {
    auto column = table.covariates.select(2, int64_t(k));
    column.copy_((column.to(torch::kFloat64) - mean[k]) / deviation[k]);
  }
}

std::string StationInputs::told() const {
  return (quantity.empty() ? columns.value : quantity) + (unit.empty() ? "" : " in " + unit);
}

StationModel StationModel::load(const fs::path& path) {
  const auto opened = infer::open_model(path);
  if (opened.recipe.value("recipe", "") != "station")
    throw ArgumentError(path.string() + ": no model of the recipe 'station'");
  const std::string where = (path / "config.json").string();
  StationModel model;
  model.config = io::from_json<models::StationFusionConfig>(opened.network.at("config"), where);
  model.inputs = io::from_json<StationInputs>(opened.recipe.at("inputs"), where);
  model.network = models::StationFusion(model.config);
  infer::load_weights(*model.network, opened.weights, opened.weights_path.string());
  model.network->eval();
  const StationInputs& in = model.inputs;
  const auto covariates = int64_t(in.columns.covariates.size());
  if (int64_t(in.sources.size()) < model.config.sources || int64_t(in.mean.size()) != covariates ||
      in.deviation.size() != in.mean.size() || covariates + (in.scaling.root() ? 1 : 0) != model.config.covariates)
    throw IoError(path, "its sources or covariates are not those of its network");
  return model;
}

void StationModel::save(const fs::path& path, const std::string& model_card) const {
  infer::ModelDescription description;
  description.network = {{"network", "station_fusion"}, {"config", io::to_json(config)}};
  description.recipe = {{"recipe", "station"}, {"inputs", io::to_json(inputs)}};
  infer::save_model(path, *network, description, model_card);
}

data::StationTable StationModel::read(const std::vector<fs::path>& files) const {
  auto table = data::read_stations(files, inputs.columns, inputs.sources);
  inputs.standardise(table);
  return table;
}

std::vector<StationTold> predict_stations(StationModel& model, const data::StationTable& table) {
  const torch::NoGradGuard no_grad;
  const OneThread one_thread;
  std::vector<StationTold> all;
  if (!table.asked.any().item<bool>())
    throw ArgumentError("predict: every line has a value; leave the cell of '" + model.inputs.columns.value +
                        "' empty in lines that ask for one");
  const auto asked = table.asked.accessor<bool, 2>();
  Progress bar("times", int64_t(table.times.size()));
  for (int64_t t = 0; t < int64_t(table.times.size()); ++t) {
    bar.advance();
    std::vector<int64_t> targets;
    for (int64_t s = 0; s < asked.size(1); ++s)
      if (asked[t][s]) targets.push_back(s);
    if (targets.empty()) continue;
    const auto present = present_stations(table, t);
    if (present.empty())
      throw ArgumentError("predict: " + table.times[size_t(t)] +
                          " asks for a value, but no station has one then; give its measurements with another --input");
    for (size_t first = 0; first < targets.size(); first += kToldAtOnce) {
      const std::vector<int64_t> some(targets.begin() + long(first),
                                      targets.begin() + long(std::min(first + kToldAtOnce, targets.size())));
      const auto batch = ask_stations(table, model.inputs.scaling, t, present, some);
      const auto answer = answer_stations(model.inputs.scaling, batch, model.network(batch.measured, batch.targets));
      for (size_t i = 0; i < some.size(); ++i) {
        const auto at = int64_t(i);
        all.push_back({t, some[i], answer.mean[at].item<double>(), answer.low[at].item<double>(),
                       answer.high[at].item<double>()});
      }
    }
  }
  bar.finish();
  return all;
}

void write_station_predictions(const fs::path& file, const StationInputs& inputs, const data::StationTable& table,
                               const std::vector<StationTold>& told) {
  const auto& c = inputs.columns;
  std::string text = io::csv_cell(c.time) + "," + io::csv_cell(c.station) + "," + io::csv_cell(c.value) + "," +
                     io::csv_cell(c.value + kLow) + "," + io::csv_cell(c.value + kHigh) + "\n";
  for (const StationTold& one : told)
    text += io::csv_cell(table.times[size_t(one.time)]) + "," + io::csv_cell(table.names[size_t(one.station)]) + "," +
            io::csv_number(one.mean) + "," + io::csv_number(one.low) + "," + io::csv_number(one.high) + "\n";
  io::write_file(file, text);
}

bool is_station_prediction(const fs::path& file) {
  const auto columns = io::csv_columns(file);
  return columns.size() == 5 && columns[3] == columns[2] + kLow && columns[4] == columns[2] + kHigh;
}

std::vector<StationScore> evaluate_station_predictions(const fs::path& file, const fs::path& reference) {
  const io::CsvTable told = io::read_csv(file), measured = io::read_csv(reference);
  const auto& names = told.columns();
  const size_t time = measured.column(names.at(0)), station = measured.column(names.at(1));
  const auto value = measured.numbers(measured.column(names.at(2)));
  std::map<std::pair<std::string, std::string>, double> known;
  for (size_t r = 0; r < measured.rows(); ++r) {
    if (std::isnan(value[r])) continue;
    if (!known.emplace(std::pair{measured.cell(r, time), measured.cell(r, station)}, value[r]).second)
      throw IoError(reference, "station " + measured.cell(r, station) + " has two values at " + measured.cell(r, time) +
                                   ", expected one");
  }
  struct Sums {
    double squared = 0, absolute = 0, error = 0, covered = 0, count = 0;
    void add(const Sums& s) {
      squared += s.squared, absolute += s.absolute, error += s.error, covered += s.covered, count += s.count;
    }
  };
  const auto mean = told.numbers(2), low = told.numbers(3), high = told.numbers(4);
  std::map<std::string, Sums> of_time;
  for (size_t r = 0; r < told.rows(); ++r) {
    const auto at = known.find({told.cell(r, 0), told.cell(r, 1)});
    if (at == known.end()) continue;
    const double error = mean[r] - at->second;
    of_time[told.cell(r, 0)].add(
        {error * error, std::abs(error), error, double(low[r] <= at->second && at->second <= high[r]), 1});
  }
  if (of_time.empty())
    throw IoError(reference, "has none of the values that " + file.string() + " tells; columns " + names[0] + ", " +
                                 names[1] + " and " + names[2] + " are compared");
  std::vector<Sums> times;
  for (const auto& [name, sums] : of_time) times.push_back(sums);
  std::vector<size_t> all(times.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  std::vector<StationScore> scores;
  for (const auto& [name, of] : {std::pair<const char*, double (*)(const Sums&)>{
                                     "RMSE", [](const Sums& s) { return std::sqrt(s.squared / s.count); }},
                                 {"MAE", [](const Sums& s) { return s.absolute / s.count; }},
                                 {"bias", [](const Sums& s) { return s.error / s.count; }},
                                 {"covered", [](const Sums& s) { return 100 * s.covered / s.count; }}}) {
    const auto statistic = [&, of = of](const std::vector<size_t>& drawn) {
      Sums sums;
      for (const size_t i : drawn) sums.add(times[i]);
      return of(sums);
    };
    StationScore score{name, statistic(all), {NAN, NAN}};
    if (times.size() > 1) score.interval = train::bootstrap_interval(times.size(), statistic, 1000, 0.95, 0);
    scores.push_back(score);
  }
  return scores;
}

}  // namespace fovea::recipes
