#include "fovea/recipes/air_stations.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "fovea/core/error.h"
#include "fovea/io/csv.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace {
constexpr double kEarthRadiusKm = 6371.0;
constexpr double kBinKm = 20, kFarKm = 400;

std::array<double, 3> place_km(double longitude_deg, double latitude_deg) {
  const double a = longitude_deg * M_PI / 180, b = latitude_deg * M_PI / 180;
  return {kEarthRadiusKm * std::cos(b) * std::cos(a), kEarthRadiusKm * std::cos(b) * std::sin(a),
          kEarthRadiusKm * std::sin(b)};
}

double squared_error(const torch::Tensor& left_out, const torch::Tensor& values) {
  return (left_out - values).square().sum().item<double>();
}

// Each value predicted from the others with weights w [M,M] whose diagonal is left out.
torch::Tensor weighted_others(const torch::Tensor& w, const torch::Tensor& values) {
  const auto others = w.clone().fill_diagonal_(0);
  return torch::matmul(others, values) / others.sum(1);
}

// Ordinary kriging of each value from the others: with the inverse of the system of all stations, the error of a
// left-out value is (K^-1 z)_i / (K^-1)_ii (Dubrule 1983).
torch::Tensor krige_others(const torch::Tensor& distance, const torch::Tensor& values, const Variogram& variogram) {
  const int64_t M = values.numel();
  auto system = torch::ones({M + 1, M + 1}, distance.options());
  const auto semivariance = variogram.nugget + variogram.sill * (1 - (-distance / variogram.range_km).exp());
  system.slice(0, 0, M).slice(1, 0, M).copy_(semivariance).fill_diagonal_(0);
  system[M][M] = 0;
  const auto inverse = torch::linalg_inv(system).slice(0, 0, M).slice(1, 0, M);
  return values - torch::matmul(inverse, values) / inverse.diagonal();
}

// Two stations at one place would have infinite weights.
torch::Tensor distances(const torch::Tensor& points) {
  return torch::cdist(points, points, 2.0, /*compute_mode=*/2).clamp_min(1e-3);
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
      const auto place = place_km(longitude[r], latitude[r]);
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

double Variogram::operator()(double distance_km) const {
  return nugget + sill * (1 - std::exp(-distance_km / range_km));
}

Variogram fit_variogram(const StationDays& data) {
  constexpr int kBins = int(kFarKm / kBinKm);
  std::vector<double> pairs(kBins), distance(kBins), half_square(kBins);
  for (const StationDay& day : data.days) {
    const auto d = distances(day.samples.points);
    const auto d_at = d.accessor<double, 2>();
    const auto v = day.samples.values.accessor<double, 1>();
    for (int64_t i = 0; i < v.size(0); ++i)
      for (int64_t j = 0; j < i; ++j) {
        if (d_at[i][j] >= kFarKm) continue;
        const int bin = int(d_at[i][j] / kBinKm);
        ++pairs[bin], distance[bin] += d_at[i][j], half_square[bin] += (v[i] - v[j]) * (v[i] - v[j]) / 2;
      }
  }
  // For each range the best nugget and sill are a weighted line, kept at or above 0; the best range is searched.
  Variogram best;
  double least = INFINITY;
  for (double range = 10; range <= 2000; range *= 1.05) {
    double w = 0, wx = 0, wy = 0, wxx = 0, wxy = 0, wyy = 0;
    for (int b = 0; b < kBins; ++b) {
      if (pairs[b] == 0) continue;
      const double n = pairs[b], x = 1 - std::exp(-distance[b] / n / range), y = half_square[b] / n;
      w += n, wx += n * x, wy += n * y, wxx += n * x * x, wxy += n * x * y, wyy += n * y * y;
    }
    double sill = (w * wxy - wx * wy) / (w * wxx - wx * wx), nugget = (wy - sill * wx) / w;
    if (nugget < 0) nugget = 0, sill = wxy / wxx;
    const double error =
        wyy - 2 * nugget * wy - 2 * sill * wxy + nugget * nugget * w + 2 * nugget * sill * wx + sill * sill * wxx;
    if (sill > 0 && error < least) least = error, best = {nugget, sill, range};
  }
  return best;
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
    const auto d = distances(day.samples.points);
    inverse_distance += squared_error(weighted_others(d.pow(-2), values), values);
    kriging += squared_error(krige_others(d, values, variogram), values);
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
