#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fovea/recipes/station_model.h"

namespace fovea::recipes {

/// Who told a value.
struct StationExplanation {
  std::string time, station;
  double mean = 0, low = 0, high = 0;
  std::vector<int64_t> others;  // by weight, largest first
  std::vector<double> weight;   // d value / d its value, exact: the mean is linear in what was measured
  std::vector<double> distance_km, east_km, north_km;  // from the place
};

/// One place at one time, told by the others even where it has a value of its own; writes weights.csv, map.svg and
/// explain.json to `folder`, each of them whole or not at all.
/// Errors   ArgumentError: a time or station that the table lacks, nobody else with a value
StationExplanation explain_station(StationModel& model, const data::StationTable& table, const std::string& time,
                                   const std::string& station, const std::filesystem::path& folder);

}  // namespace fovea::recipes
