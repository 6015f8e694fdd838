#include <algorithm>
#include <cmath>

#include "fovea/core/version.h"
#include "fovea/io/config.h"
#include "fovea/recipes/slide_train.h"
#include "fovea/recipes/training_log.h"
#include "fovea/report/html.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::fixed;

std::string with_interval(const SlideScore& s) {
  if (std::isnan(s.value)) return "not defined";
  return std::isnan(s.interval.low) ? fixed(s.value, 3) : fixed(s.value, 3) + " (" + fixed(s.interval.low, 3) + " to " + fixed(s.interval.high, 3) + ")";
}

void add_scores(report::HtmlReport& html, const SlideReport& r) {
  html.heading(r.held_out ? "Result on held-out slides" : "Result on the slides that chose the checkpoint");
  const auto best = std::max_element(r.methods.begin() + 1, r.methods.end(), [](const auto& a, const auto& b) { return a.scores[0].value < b.scores[0].value; });
  const auto &network = r.methods[0].scores, &other = best->scores;
  const bool better = network[0].value > other[0].value;
  std::vector<report::Tile> tiles;
  for (const auto& s : network) tiles.push_back({s.name + ", network", std::isnan(s.value) ? "–" : fixed(s.value, 3), "95 % of resamples of cases: " + fixed(s.interval.low, 3) + " to " + fixed(s.interval.high, 3)});
  tiles[0].tone = better ? report::Tone::kGood : report::Tone::kBad;
  tiles.push_back({other[0].name + ", best baseline", std::isnan(other[0].value) ? "–" : fixed(other[0].value, 3), best->name});
  if (!better) html.notice("A baseline (" + best->name + ") is as good as the network, or better.", report::NoticeKind::kWarning);
  html.tiles(tiles);
  report::Table table;
  table.caption = std::to_string(r.predictions.slide_ids.size()) + " slides; in brackets what 95 % of 1000 resamples of their cases give.";
  table.columns = {{"method", report::Align::kText}};
  for (const auto& s : network) table.columns.push_back({s.name});
  for (const auto& m : r.methods) {
    std::vector<report::Cell> row{m.name};
    for (const auto& s : m.scores) row.push_back(with_interval(s));
    table.rows.push_back(row);
  }
  html.table(table);
}

void add_slides(report::HtmlReport& html, const SlideReport& r) {
  html.heading("Slides");
  report::Table table;
  table.caption = "Effective tiles: exp of the attention's entropy, so 1 where one tile takes all and the number of tiles where all are read alike.";
  table.columns = {{"slide", report::Align::kText}, {"case", report::Align::kText}, {"label", report::Align::kText}, {"predicted", report::Align::kText}, {"probability"}, {"tiles"}, {"effective tiles"}};
  const auto& p = r.predictions;
  const auto [most, at] = p.probabilities.max(1);
  for (size_t i = 0; i < p.slide_ids.size() && i < 500; ++i) {
    const auto k = int64_t(i), predicted = at[k].item<int64_t>();
    const bool right = predicted == p.labels[i];
    table.rows.push_back({p.slide_ids[i], p.case_ids[i], r.table->classes[size_t(p.labels[i])], {r.table->classes[size_t(predicted)], right ? report::Tone::kGood : report::Tone::kBad},
                          fixed(most[k].item<double>(), 3), std::to_string(p.tiles[k].item<int64_t>()), fixed(p.effective_tiles[k].item<double>(), 1)});
  }
  html.table(table);
}

void add_training(report::HtmlReport& html, const SlideReport& r) {
  const auto log = read_columns(r.run / "log.csv"), validation = read_columns(r.run / "validation.csv");
  if (!log.count("step") || !log.count("loss")) return;
  html.heading("Training");
  report::LinePlot plot;
  plot.title = "Loss (training: mean of neighbouring steps)", plot.x_label = "step", plot.y_label = "loss", plot.width = 760;
  plot.series = {smoothed("training", log.at("step"), log.at("loss"), 120)};
  if (validation.count("step") && validation.count("loss")) plot.series.push_back({"validation slides", validation.at("step"), validation.at("loss"), {}, false, true});
  html.figure(plot);
}
}  // namespace

void write_slide_report(const std::filesystem::path& file, const SlideReport& r) {
  report::HtmlReport html(r.table->name, "recipe slide, Fovea " + std::string(kVersion));
  if (r.table->simulated) html.notice("Simulated slides: every figure here is of made-up data.", report::NoticeKind::kWarning);
  if (r.methods.empty())
    html.notice("No slide was held out and none chose the checkpoint: there is nothing to score.", report::NoticeKind::kWarning);
  else
    add_scores(html, r), add_slides(html, r);
  add_training(html, r);
  html.heading("Data and network");
  const auto count = [](const std::vector<int64_t>& rows) { return std::to_string(rows.size()); };
  const auto& inputs = r.model->inputs;
  std::string classes;
  for (const std::string& c : r.table->classes) classes += (classes.empty() ? "" : ", ") + c;
  html.key_values({{{"slides", count(r.split.train) + " to learn from, " + count(r.split.validation) + " to choose the checkpoint, " + count(r.split.held_out) + " held out; split by case"},
                    {"classes", classes},
                    {"network", io::to_json(*r.config)["network"].get<std::string>()},
                    {"features of a tile", std::to_string(r.model->network->features()) + (inputs.encoder.empty() ? "" : " of " + inputs.encoder)}}});
  html.write(file);
}

}  // namespace fovea::recipes
