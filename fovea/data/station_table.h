#pragma once
#include <torch/torch.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace fovea::data {

/// Which column of a table of measurements is what.
struct StationColumns {
  std::string time = "time", station = "station";
  std::string longitude = "longitude_deg", latitude = "latitude_deg";
  std::string x_km, y_km;
  std::string value = "value";
  std::string source;
  std::vector<std::string> covariates;

  template <class V>
  void visit(V& v) {
    v("time", time, "when; times are ordered as texts are, so write 2005-01-03");
    v("station", station, "who measured");
    v("longitude", longitude, "degrees east");
    v("latitude", latitude, "degrees north");
    v("x_km", x_km, "instead of longitude, on a flat map");
    v("y_km", y_km, "instead of latitude");
    v("value", value, "what was measured; an empty cell is a value to be told");
    v("source", source, "kind of station, whose values may have an offset of their own; empty: all are alike");
    v("covariates", covariates, "numbers known at every place and time, e.g. [\"elevation_m\"]");
  }
};

/// What stations measured, time by time.
struct StationTable {
  std::vector<std::string> names, times;
  std::vector<std::string> sources = {""};  // of the indices in `source`
  torch::Tensor places_km;                  // [S,2] or [S,3] f64
  torch::Tensor source;                     // [S] int64
  torch::Tensor values;                     // [T,S] f64, NaN: missing
  torch::Tensor asked;                      // [T,S] bool: a line without a value
  torch::Tensor covariates;                 // [T,S,K] f32; K may be 0
  int64_t first_test = 0;                   // times from here on are for testing alone

  /// Place of a station or time. Errors: ArgumentError with the nearest known one.
  int64_t station(const std::string& name) const;
  int64_t time(const std::string& name) const;
};

/// A place on the sphere of radius 6371 km; chords of 60 km are arcs of 60 km to 1e-6.
std::array<double, 3> place_km(double longitude_deg, double latitude_deg);

/// True for a .csv file with a column `station` and places.
bool is_station_table(const std::filesystem::path& file);

/// Reads lines (time, station, place, value) of one or more files, as if they stood in one; only the first need have the
/// column of values. `sources`: those of a model; empty: those of the table.
/// Errors   IoError naming file, station and time: a column that is missing, no line, two values of a station at one
///          time, a place that is not finite or that moves, no covariate, a source that is not among `sources`
StationTable read_stations(const std::vector<std::filesystem::path>& files, const StationColumns& columns,
                           const std::vector<std::string>& sources = {});

}  // namespace fovea::data
