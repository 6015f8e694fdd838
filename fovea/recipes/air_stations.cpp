#include "fovea/recipes/air_stations.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "fovea/core/error.h"
#include "fovea/data/station_table.h"
#include "fovea/io/csv.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace {
double squared_error(const torch::Tensor& left_out, const torch::Tensor& values) {
  return (left_out - values).square().sum().item<double>();
}

}  // namespace

StationDays read_station_days(const std::filesystem::path& path, int64_t least) {
  const io::CsvTable table = io::read_csv(path);
  const auto longitude = table.numbers(table.column("longitude_deg")),
             latitude = table.numbers(table.column("latitude_deg")), value = table.numbers(table.column("pm10_ug_m3"));
  const size_t date = table.column("date"), station = table.column("station");
  StationDays data;
  std::map<std::string, int64_t> place_of;
  std::map<std::string, std::vector<size_t>> rows_of;
  for (size_t r = 0; r < table.rows(); ++r) {
    if (!std::isfinite(value[r])) continue;
    if (place_of.emplace(table.cell(r, station), int64_t(data.names.size())).second)
      data.names.push_back(table.cell(r, station)), data.longitude_latitude_deg.push_back({longitude[r], latitude[r]});
    rows_of[table.cell(r, date)].push_back(r);
  }
  for (const auto& [day, rows] : rows_of) {
    if (int64_t(rows.size()) < std::max<int64_t>(least, 2)) continue;
    std::vector<double> points, values;
    StationDay one{day, {}, {}};
    for (const size_t r : rows) {
      const auto place = data::place_km(longitude[r], latitude[r]);
      points.insert(points.end(), place.begin(), place.end());
      values.push_back(value[r]), one.stations.push_back(place_of.at(table.cell(r, station)));
    }
    one.samples = {torch::tensor(points, torch::kFloat64).reshape({-1, 3}), torch::tensor(values, torch::kFloat64)};
    data.days.push_back(std::move(one));
  }
  if (data.days.empty())
    throw IoError(path,
                  "no day has " + std::to_string(least) + " stations or more, expected the table of scripts/data air");
  return data;
}

Variogram fit_variogram(const StationDays& data) {
  std::vector<std::pair<torch::Tensor, torch::Tensor>> times;
  for (const StationDay& day : data.days) times.emplace_back(station_distances(day.samples.points), day.samples.values);
  return fit_variogram(times);
}

double regression_error(const StationDays& data, double bandwidth_km) {
  const OneThread one_thread;
  double sum = 0, n = 0;
  for (const StationDay& day : data.days)
    sum += squared_error(leave_one_out(day.samples, {bandwidth_km}), day.samples.values),
        n += double(day.samples.values.numel());
  return std::sqrt(sum / n);
}

LeftOut leave_stations_out(const StationDays& data, double bandwidth_km) {
  torch::NoGradGuard no_grad;
  const OneThread one_thread;
  const Variogram variogram = fit_variogram(data);
  LeftOut r;
  double inverse_distance = 0, kriging = 0, mean = 0;
  for (const StationDay& day : data.days) {
    const auto& values = day.samples.values;
    const auto d = station_distances(day.samples.points);
    inverse_distance += squared_error(weighted_others(d.pow(-2), values), values);
    kriging += squared_error(krige_others(d, values, variogram).mean, values);
    mean += squared_error(weighted_others(torch::ones_like(d), values), values);
    r.values += values.numel();
  }
  r.days = int64_t(data.days.size());
  r.regression = regression_error(data, bandwidth_km);
  r.inverse_distance = std::sqrt(inverse_distance / r.values), r.kriging = std::sqrt(kriging / r.values);
  r.daily_mean = std::sqrt(mean / r.values);
  return r;
}

}  // namespace fovea::recipes
