#include <algorithm>
#include <cmath>
#include <map>

#include "fovea/core/version.h"
#include "fovea/io/config.h"
#include "fovea/recipes/station_train.h"
#include "fovea/recipes/training_log.h"
#include "fovea/report/html.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::fixed;

constexpr size_t kShownTimes = 120, kShownPoints = 1500, kShownStations = 15;

void add_scores(report::HtmlReport& html, const StationReport& r) {
  const LeftOutStations& s = r.scores;
  html.heading(r.held_out ? "Result on stations and times not learnt from" : "Result on times not learnt from");
  const bool root = r.config->scale == ValueScale::kRoot;
  const double kriging = std::min(s.kriging, s.log_kriging),
               best_simple = std::min({s.kernel, s.inverse_distance, s.mean, kriging});
  const bool better = s.fusion < best_simple;
  if (!better) html.notice("A baseline is as good as the network, or better.", report::NoticeKind::kWarning);
  const std::string unit = r.model->inputs.unit.empty() ? "" : " " + r.model->inputs.unit;
  html.tiles(
      std::vector<report::Tile>{{"RMSE, network", fixed(s.fusion, 3) + unit,
                                 std::to_string(s.values) + " values left out at " + std::to_string(s.times) + " times",
                                 better ? report::Tone::kGood : report::Tone::kBad},
                                {"RMSE, kriging", fixed(kriging, 3) + unit,
                                 "network over kriging " + fixed(s.over_kriging.value, 3) + " (" +
                                     fixed(s.over_kriging.low, 3) + " to " + fixed(s.over_kriging.high, 3) + ")"},
                                {"within the 95 % interval", fixed(s.covered, 1) + " %", "of the values left out"}});
  report::Table table;
  table.caption =
      std::string(
          "Each value told from the other stations of its time. Likelihood: mean negative log density; lower is "
          "better. ") +
      (root ? "Kriging of logarithms: of log(1 + value). " : "") +
      (r.table->covariates.size(2) > 0 ? "The baselines see what a line in " + r.config->columns.covariates.front() +
                                             " leaves, fitted at each time."
                                       : "");
  table.columns = {{"method", report::Align::kText},
                   {"RMSE" + (r.model->inputs.unit.empty() ? "" : ", " + r.model->inputs.unit)},
                   {"negative log likelihood, nats"}};
  const auto row = [&](const std::string& name, double rmse, double nll) {
    table.rows.push_back({report::Cell(name),
                          report::Cell(fixed(rmse, 3), rmse == std::min(best_simple, s.fusion) ? report::Tone::kGood
                                                                                               : report::Tone::kPlain),
                          std::isnan(nll) ? "–" : fixed(nll, 3)});
  };
  row("network", s.fusion, s.fusion_nll), row("ordinary kriging", s.kriging, s.kriging_nll);
  if (root) row("kriging of logarithms", s.log_kriging, s.log_kriging_nll);
  row("kernel of " + fixed(r.config->kernel_km, 0) + " km", s.kernel, NAN),
      row("inverse distance squared", s.inverse_distance, NAN), row("mean of the others", s.mean, NAN);
  html.table(table);
}

// The station whose error is the median one, over its times; and all values against what was told.
void add_pictures(report::HtmlReport& html, const StationReport& r) {
  struct OfStation {
    double squared = 0, bias = 0;
    std::vector<const LeftOutValue*> values;
  };
  std::map<int64_t, OfStation> stations;
  for (const LeftOutValue& v : r.each) {
    auto& s = stations[v.station];
    s.squared += (v.mean - v.value) * (v.mean - v.value), s.bias += v.mean - v.value, s.values.push_back(&v);
  }
  std::vector<std::pair<double, int64_t>> by_error;
  for (const auto& [station, s] : stations)
    by_error.emplace_back(std::sqrt(s.squared / double(s.values.size())), station);
  std::sort(by_error.begin(), by_error.end());

  const std::string quantity = r.model->inputs.told();
  const int64_t middle = by_error[by_error.size() / 2].second;
  const auto& series = stations[middle].values;
  const size_t first = series.size() > kShownTimes ? series.size() - kShownTimes : 0;
  report::LinePlot plot;
  plot.title = "Station " + r.table->names[size_t(middle)] + ", told by the others", plot.y_label = quantity,
  plot.width = 760;
  plot.x_label = "times from " + r.table->times[size_t(series[first]->time)] + " to " +
                 r.table->times[size_t(series.back()->time)];
  report::Series measured{"measured", {}, {}, {}, false, true}, told{"network", {}, {}},
      low{"95 % interval", {}, {}, {}, true}, high{"", {}, {}, {}, true};
  for (size_t i = first; i < series.size(); ++i) {
    const double x = double(i - first);
    for (auto& [s, y] : std::vector<std::pair<report::Series*, double>>{
             {&measured, series[i]->value}, {&told, series[i]->mean}, {&low, series[i]->low}, {&high, series[i]->high}})
      s->x.push_back(x), s->y.push_back(y);
  }
  low.colour = high.colour = report::category_colour(1);
  plot.series = {measured, told, low, high};
  html.heading("What it tells");
  html.figure(plot, "The station whose error is the median one; it was left out.");

  report::LinePlot scatter;
  scatter.title = "Measured against told", scatter.x_label = "told, " + quantity, scatter.y_label = "measured",
  scatter.width = 480, scatter.height = 400;
  report::Series points{"values left out", {}, {}, {}, false, true}, line{"equal", {}, {}, {}, true};
  double least = INFINITY, most = -INFINITY;
  for (size_t i = 0; i < r.each.size(); i += 1 + r.each.size() / kShownPoints)
    points.x.push_back(r.each[i].mean), points.y.push_back(r.each[i].value), least = std::min(least, r.each[i].mean),
                                                                             most = std::max(most, r.each[i].mean);
  points.joined = false;
  line.x = line.y = {least, most};
  scatter.series = {points, line};
  html.figure(scatter);

  html.heading("Stations told worst");
  report::Table table;
  table.caption = "A large bias: the station stands apart from its neighbours (a busy road, a valley).";
  table.columns = {{"station", report::Align::kText}, {"values"}, {"RMSE"}, {"bias (told less measured)"}};
  for (size_t i = 0; i < by_error.size() && i < kShownStations; ++i) {
    const auto& [rmse, station] = by_error[by_error.size() - 1 - i];
    const auto& s = stations[station];
    table.rows.push_back({r.table->names[size_t(station)], std::to_string(s.values.size()), fixed(rmse, 3),
                          fixed(s.bias / double(s.values.size()), 3)});
  }
  html.table(table);
}

void add_training(report::HtmlReport& html, const StationReport& r) {
  const auto log = read_columns(r.run / "log.csv"), validation = read_columns(r.run / "validation.csv");
  if (!log.count("step") || !log.count("loss")) return;
  html.heading("Training");
  report::LinePlot plot;
  plot.title = "Negative log likelihood (training: mean of neighbouring steps)", plot.x_label = "step",
  plot.y_label = "nats a value", plot.width = 760;
  plot.series = {smoothed("training", log.at("step"), log.at("loss"), 120)};
  if (validation.count("step") && validation.count("nll"))
    plot.series.push_back({"validation times", validation.at("step"), validation.at("nll"), {}, false, true});
  html.figure(plot);
}
}  // namespace

void write_station_report(const std::filesystem::path& file, const StationReport& r) {
  const StationInputs& in = r.model->inputs;
  report::HtmlReport html(in.told(), "recipe station, Fovea " + std::string(kVersion));
  if (r.scores.values == 0)
    html.notice("No value could be scored: none of the stations left out has one at the test times.",
                report::NoticeKind::kWarning);
  else
    add_scores(html, r), add_pictures(html, r);
  add_training(html, r);
  html.heading("Data and network");
  const auto& times = r.table->times;
  std::string sources;
  for (const std::string& name : in.sources) sources += (sources.empty() ? "" : ", ") + (name.empty() ? "one" : name);
  std::string covariates;
  for (const std::string& name : in.columns.covariates) covariates += (covariates.empty() ? "" : ", ") + name;
  html.key_values(
      {{{"stations",
         std::to_string(r.training_stations) + " to learn from, of " + std::to_string(r.table->names.size())},
        {"times", std::to_string(r.training_times) + " to learn from, from " + times.front() + "; tested from " +
                      times[size_t(r.table->first_test)] + " to " + times.back()},
        {"kinds of station", sources},
        {"covariates", covariates.empty() ? "none" : covariates},
        {"scale of the errors", io::to_json(*r.config)["scale"].get<std::string>()},
        {"a value is told by", "the nearest " + std::to_string(in.scaling.nearest) + " stations at most"}}});
  html.write(file);
}

}  // namespace fovea::recipes
