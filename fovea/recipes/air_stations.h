#pragma once
#include <torch/torch.h>

#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "fovea/recipes/kernel_regression.h"
#include "fovea/recipes/kriging.h"

// Leave one station out on daily PM10 of German background stations (`scripts/data air`): kernel regression beside the
// methods that a sceptical reader would try.
namespace fovea::recipes {

/// What was measured on one day: places by data::place_km() and PM10 in µg/m³.
struct StationDay {
  std::string date;
  Samples samples;                // points [M,3] in km, values [M]
  std::vector<int64_t> stations;  // places in StationDays::names
};
struct StationDays {
  std::vector<std::string> names;
  std::vector<std::array<double, 2>> longitude_latitude_deg;  // of the stations
  std::vector<StationDay> days;                               // by date
};

/// Reads air.csv; days with fewer than `least` stations are left out. Errors: IoError.
StationDays read_station_days(const std::filesystem::path& path, int64_t least = 30);

/// The variogram of all days together, (µg/m³)².
Variogram fit_variogram(const StationDays& data);

/// Root mean squared error of left-out values, µg/m³, pooled over days.
struct LeftOut {
  int64_t days = 0, values = 0;
  double regression = 0;        // Gaussian kernel of fixed bandwidth
  double inverse_distance = 0;  // weights 1 / distance²
  double kriging = 0;           // ordinary, variogram of all days (its fit has seen the left-out values)
  double daily_mean = 0;        // of the other stations
};
LeftOut leave_stations_out(const StationDays& data, double bandwidth_km = 60);

/// The kernel's error alone, for choosing a bandwidth.
double regression_error(const StationDays& data, double bandwidth_km);

}  // namespace fovea::recipes
