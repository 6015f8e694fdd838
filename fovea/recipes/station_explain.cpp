#include "fovea/recipes/station_explain.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "fovea/core/error.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/csv.h"
#include "fovea/io/json_file.h"
#include "fovea/recipes/one_thread.h"
#include "fovea/report/plot.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace fs = std::filesystem;

namespace {
using report::fixed;
using Vector = std::array<double, 3>;

Vector minus(const Vector& a, const Vector& b) { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }
double dot(const Vector& a, const Vector& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

// East and north of a place as seen from another, in km: on the plane that touches the globe there, or on a flat map.
std::array<double, 2> east_north(const Vector& from, const Vector& to, bool flat) {
  const Vector d = minus(to, from);
  if (flat) return {d[0], d[1]};
  const double radius = std::sqrt(dot(from, from)), circle = std::hypot(from[0], from[1]);
  const Vector up = {from[0] / radius, from[1] / radius, from[2] / radius};
  const Vector east = circle > 0 ? Vector{-from[1] / circle, from[0] / circle, 0} : Vector{0, 1, 0};
  const Vector north = {up[1] * east[2] - up[2] * east[1], up[2] * east[0] - up[0] * east[2],
                        up[0] * east[1] - up[1] * east[0]};
  return {dot(d, east), dot(d, north)};
}

std::string map_svg(const StationExplanation& e) {
  struct Share {
    const char* name;
    double from;
  };
  const double below = -std::numeric_limits<double>::infinity();
  const std::array<Share, 5> shares = {
      {{"20 % and more", 0.2}, {"10 to 20 %", 0.1}, {"5 to 10 %", 0.05}, {"0 to 5 %", 0}, {"below 0", below}}};
  report::LinePlot plot;
  plot.title = "Who tells " + e.station + " at " + e.time + ", by weight";
  plot.x_label = "km east of it", plot.y_label = "km north", plot.width = 560, plot.height = 480;
  double above = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < shares.size(); ++i) {
    report::Series series{shares[i].name, {}, {}, report::heat_colour(0.8 - 0.18 * double(i)), false, true, false};
    for (size_t k = 0; k < e.others.size(); ++k)
      if (e.weight[k] >= shares[i].from && e.weight[k] < above)
        series.x.push_back(e.east_km[k]), series.y.push_back(e.north_km[k]);
    above = shares[i].from;
    if (!series.x.empty()) plot.series.push_back(series);
  }
  plot.series.push_back({e.station, {0}, {0}, report::category_colour(2), false, true, false});
  return report::to_svg(plot);
}
}  // namespace

StationExplanation explain_station(StationModel& model, const data::StationTable& table, const std::string& time,
                                   const std::string& station, const fs::path& folder) {
  const OneThread one_thread;
  const int64_t t = table.time(time), s = table.station(station);
  const auto present = present_stations(table, t);
  const auto batch = ask_stations(table, model.inputs.scaling, t, present, {s});
  StationExplanation e{time, station, 0, 0, 0, {}, {}, {}, {}, {}};
  torch::Tensor weights;
  {
    const auto fused = model.network(batch.measured, batch.targets);
    const auto answer = answer_stations(model.inputs.scaling, batch, fused);
    e.mean = answer.mean.item<double>(), e.low = answer.low.item<double>(), e.high = answer.high.item<double>();
    weights = model.network->weights(batch.measured, batch.targets)[0][0].to(torch::kFloat64);
  }
  std::vector<int64_t> order(size_t(weights.numel()));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int64_t a, int64_t b) { return weights[a].item<double>() > weights[b].item<double>(); });
  const auto place = [&](int64_t of) {
    return Vector{table.places_km[of][0].item<double>(), table.places_km[of][1].item<double>(),
                  table.places_km[of][2].item<double>()};
  };
  const Vector here = place(s);
  std::string csv = "station,weight,value,distance_km,east_km,north_km\n";
  for (const int64_t k : order) {
    const int64_t other = batch.others[0][k].item<int64_t>();
    const Vector d = minus(place(other), here);
    const auto [east, north] = east_north(here, place(other), !model.inputs.columns.x_km.empty());
    e.others.push_back(other), e.weight.push_back(weights[k].item<double>()),
        e.distance_km.push_back(std::sqrt(dot(d, d))), e.east_km.push_back(east), e.north_km.push_back(north);
    csv += io::csv_cell(table.names[size_t(other)]) + "," + fixed(e.weight.back(), 6) + "," +
           fixed(table.values[t][other].item<double>(), 6) + "," + fixed(e.distance_km.back(), 3) + "," +
           fixed(east, 3) + "," + fixed(north, 3) + "\n";
  }
  fs::create_directories(folder);
  io::write_file(folder / "weights.csv", csv);
  io::write_file(folder / "map.svg", map_svg(e));
  const double measured = table.values[t][s].item<double>();
  const double sum = std::accumulate(e.weight.begin(), e.weight.end(), 0.0);
  io::write_json(folder / "explain.json", {{"time", time},
                                           {"station", station},
                                           {"of", model.inputs.told()},
                                           {"told", e.mean},
                                           {"low", e.low},
                                           {"high", e.high},
                                           {"measured", std::isnan(measured) ? io::Json(nullptr) : io::Json(measured)},
                                           {"stations", e.others.size()},
                                           {"sum_of_weights", sum}});
  return e;
}

}  // namespace fovea::recipes
