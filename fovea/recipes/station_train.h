#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "fovea/recipes/station_config.h"
#include "fovea/recipes/station_model.h"

namespace fovea::recipes {

struct StationTrainOptions {
  std::filesystem::path run;
  std::optional<int64_t> fold;  // of five: stations that are not learnt from
  bool resume = false;
  std::vector<std::string> command;
};
struct StationTrainResult {
  train::TrainResult training;
  std::filesystem::path model, report;  // empty when the run was interrupted
  LeftOutStations scores;
};

/// What a training has to show.
struct StationReport {
  const data::StationTable* table = nullptr;
  const StationConfig* config = nullptr;
  const StationModel* model = nullptr;
  std::filesystem::path run;
  bool held_out = false;  // the scored stations were not learnt from
  size_t training_times = 0;
  int64_t training_stations = 0;
  LeftOutStations scores;
  std::vector<LeftOutValue> each;
};

/// Trains the recipe `station`: RUN/{config.json, manifest.json, log.csv, checkpoints/}, then RUN/model,
/// RUN/predictions.csv (each station left out at the test times, beside kriging), RUN/metrics.json and RUN/report.html.
/// Errors   as data::read_stations() and make_station_problem()
StationTrainResult train_stations(const std::filesystem::path& table, const StationConfig& config,
                                  const StationTrainOptions& options);

/// One offline HTML file: result beside the baselines, a station's series with intervals, the stations told worst,
/// training curves.
void write_station_report(const std::filesystem::path& file, const StationReport& report);

}  // namespace fovea::recipes
