#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fovea/recipes/station_scores.h"
#include "fovea/train/survival_metrics.h"

namespace fovea::recipes {

/// What prediction repeats of the training.
struct StationInputs {
  data::StationColumns columns;
  std::string quantity, unit;
  std::vector<std::string> sources;
  StationScaling scaling;
  std::vector<double> mean, deviation;  // of covariates

  template <class V>
  void visit(V& v) {
    v("columns", columns, "of the table");
    v("quantity", quantity, "what was measured");
    v("unit", unit, "of it");
    v("sources", sources, "kinds of station");
    v("scaling", scaling, "of values");
    v("mean", mean, "of covariates, subtracted");
    v("deviation", deviation, "of covariates, by which they are divided");
  }
  /// Puts a table's covariates on mean 0 and deviation 1.
  void standardise(data::StationTable& table) const;
  /// "PM10 in µg/m³".
  std::string told() const;
};

struct StationModel {
  models::StationFusion network{nullptr};
  models::StationFusionConfig config;
  StationInputs inputs;

  /// Errors  IoError: no model folder, damaged; ArgumentError: of another recipe.
  static StationModel load(const std::filesystem::path& path);
  void save(const std::filesystem::path& path, const std::string& model_card) const;
  /// Tables of measurements as the model takes them. Errors: as data::read_stations().
  data::StationTable read(const std::vector<std::filesystem::path>& files) const;
};

/// A value told at a place and time.
struct StationTold {
  int64_t time = 0, station = 0;
  double mean = 0, low = 0, high = 0;
};
/// Tells every line without a value from the stations that have one at its time.
/// Errors   ArgumentError: no such line, or nobody has a value at its time
std::vector<StationTold> predict_stations(StationModel& model, const data::StationTable& table);

/// The table's columns of time, station and value, then VALUE_low and VALUE_high: 95 %. Whole or not at all.
void write_station_predictions(const std::filesystem::path& file, const StationInputs& inputs,
                               const data::StationTable& table, const std::vector<StationTold>& told);
/// True for a file that write_station_predictions() wrote.
bool is_station_prediction(const std::filesystem::path& file);

/// A figure with the percentile interval of 1000 resamples of the times.
struct StationScore {
  std::string name;  // "RMSE", "MAE", "bias", "covered": percent within low and high
  double value = 0;
  train::BootstrapInterval interval;
};
/// Scores a file of predictions against a table with columns of the same names.
/// Errors   IoError: a column that the table lacks, two values of a station at one time, no value to compare with
std::vector<StationScore> evaluate_station_predictions(const std::filesystem::path& file,
                                                       const std::filesystem::path& table);

}  // namespace fovea::recipes
