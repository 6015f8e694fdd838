#include "fovea/data/station_table.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "fovea/core/error.h"
#include "fovea/io/csv.h"

namespace fovea::data {

namespace fs = std::filesystem;

namespace {
constexpr double kEarthRadiusKm = 6371.0, kSamePlaceKm = 0.01;

struct Line {
  const fs::path* file;
  std::string time, station, source;
  std::array<double, 3> place;
  double value;
  std::vector<double> covariates;

  std::string who() const { return "station " + station + " at " + time; }
};

void read_lines(const fs::path& file, const StationColumns& columns, bool first, std::vector<Line>& lines) {
  const io::CsvTable csv = io::read_csv(file);
  const bool flat = !columns.x_km.empty();
  const auto numbers = [&](const std::string& name) { return csv.numbers(csv.column(name)); };
  const auto east = numbers(flat ? columns.x_km : columns.longitude),
             north = numbers(flat ? columns.y_km : columns.latitude);
  const auto& names = csv.columns();
  // A further file, of places that ask for values, need not have the column.
  const bool measured = first || std::find(names.begin(), names.end(), columns.value) != names.end();
  const auto value =
      measured ? numbers(columns.value) : std::vector<double>(csv.rows(), std::numeric_limits<double>::quiet_NaN());
  std::vector<std::vector<double>> covariates;
  for (const std::string& name : columns.covariates) covariates.push_back(numbers(name));
  const size_t time = csv.column(columns.time), station = csv.column(columns.station);
  for (size_t r = 0; r < csv.rows(); ++r) {
    Line line{&file,
              csv.cell(r, time),
              csv.cell(r, station),
              columns.source.empty() ? "" : csv.cell(r, csv.column(columns.source)),
              {},
              value[r],
              {}};
    line.place = flat ? std::array{east[r], north[r], 0.0} : place_km(east[r], north[r]);
    if (!std::isfinite(line.place[0]) || !std::isfinite(line.place[1]))
      throw IoError(file, line.who() + " has no " + (flat ? "place" : "longitude or latitude"));
    if (std::isinf(line.value)) throw IoError(file, line.who() + " has an infinite value");
    for (size_t k = 0; k < covariates.size(); ++k) {
      if (!std::isfinite(covariates[k][r])) throw IoError(file, line.who() + " has no " + columns.covariates[k]);
      line.covariates.push_back(covariates[k][r]);
    }
    lines.push_back(std::move(line));
  }
}

int64_t place_of(const std::vector<std::string>& names, const std::string& name, const char* what) {
  const auto at = std::find(names.begin(), names.end(), name);
  if (at != names.end()) return at - names.begin();
  const std::string nearest = nearest_name(name, names);
  throw ArgumentError("stations: no " + std::string(what) + " '" + name + "'" +
                      (nearest.empty() ? "" : ", did you mean '" + nearest + "'?"));
}
}  // namespace

int64_t StationTable::station(const std::string& name) const { return place_of(names, name, "station"); }
int64_t StationTable::time(const std::string& name) const { return place_of(times, name, "time"); }

std::array<double, 3> place_km(double longitude_deg, double latitude_deg) {
  const double a = longitude_deg * M_PI / 180, b = latitude_deg * M_PI / 180;
  return {kEarthRadiusKm * std::cos(b) * std::cos(a), kEarthRadiusKm * std::cos(b) * std::sin(a),
          kEarthRadiusKm * std::sin(b)};
}

bool is_station_table(const fs::path& file) {
  const auto columns = io::csv_columns(file);
  const auto has = [&](const char* name) { return std::find(columns.begin(), columns.end(), name) != columns.end(); };
  return has("station") && (has("longitude_deg") || has("x_km"));
}

StationTable read_stations(const std::vector<fs::path>& files, const StationColumns& columns,
                           const std::vector<std::string>& sources) {
  std::vector<Line> lines;
  for (const fs::path& file : files) read_lines(file, columns, lines.empty(), lines);
  if (lines.empty()) throw IoError(files.front(), "has no measurements");
  StationTable table;
  std::map<std::string, int64_t> row_of, column_of, source_of;
  for (const Line& line : lines) row_of.emplace(line.time, 0);
  for (auto& [time, row] : row_of) row = int64_t(table.times.size()), table.times.push_back(time);
  if (sources.empty()) {
    std::set<std::string> found;
    for (const Line& line : lines) found.insert(line.source);
    table.sources.assign(found.begin(), found.end());
  } else {
    table.sources = sources;
  }
  for (const std::string& name : table.sources) source_of.emplace(name, int64_t(source_of.size()));

  std::vector<std::array<double, 3>> places;
  std::vector<int64_t> source;
  for (const Line& line : lines) {
    const auto [at, fresh] = column_of.emplace(line.station, int64_t(table.names.size()));
    const auto known = source_of.find(line.source);
    if (known == source_of.end())
      throw IoError(*line.file, line.who() + " is of source '" + line.source + "', which the model has not learnt");
    if (fresh) {
      table.names.push_back(line.station), places.push_back(line.place), source.push_back(known->second);
      continue;
    }
    const auto& first = places[size_t(at->second)];
    double apart = 0;
    for (size_t a = 0; a < 3; ++a) apart = std::max(apart, std::abs(first[a] - line.place[a]));
    if (apart > kSamePlaceKm)
      throw IoError(*line.file, line.who() + " is not where it was before; give it another name");
    if (source[size_t(at->second)] != known->second)
      throw IoError(*line.file, line.who() + " is of source '" + line.source + "', before it was of '" +
                                    table.sources[size_t(source[size_t(at->second)])] + "'");
  }
  const auto S = int64_t(table.names.size()), T = int64_t(table.times.size()), K = int64_t(columns.covariates.size());
  table.places_km = torch::empty({S, 3}, torch::kFloat64);
  for (int64_t s = 0; s < S; ++s)
    for (int64_t a = 0; a < 3; ++a) table.places_km[s][a] = places[size_t(s)][size_t(a)];
  table.source = torch::tensor(source, torch::kInt64);
  table.values = torch::full({T, S}, std::numeric_limits<double>::quiet_NaN(), torch::kFloat64);
  table.asked = torch::zeros({T, S}, torch::kBool), table.covariates = torch::zeros({T, S, K});
  auto values = table.values.accessor<double, 2>();
  auto asked = table.asked.accessor<bool, 2>();
  auto covariates = table.covariates.accessor<float, 3>();
  for (const Line& line : lines) {
    const int64_t t = row_of.at(line.time), s = column_of.at(line.station);
    if (!std::isnan(values[t][s]) || asked[t][s])
      throw IoError(*line.file, line.who() + " stands in two lines, expected one");
    values[t][s] = line.value, asked[t][s] = std::isnan(line.value);
    for (int64_t k = 0; k < K; ++k) covariates[t][s][k] = float(line.covariates[size_t(k)]);
  }
  return table;
}

}  // namespace fovea::data
