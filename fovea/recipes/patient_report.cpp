#include "fovea/recipes/patient_report.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "fovea/core/version.h"
#include "fovea/recipes/training_log.h"
#include "fovea/report/html.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::fixed;

std::string with_interval(const PatientScore& s) {
  return fixed(s.value, 3) + " (" + fixed(s.interval.low, 3) + " to " + fixed(s.interval.high, 3) + ")";
}

void add_scores(report::HtmlReport& html, const PatientReport& r) {
  const auto& network = r.methods.front();
  const auto& other = r.methods.back();
  const bool has_baseline = other.is_baseline;
  html.heading(r.held_out ? "Result on held-out patients" : "Result on the patients who chose the checkpoint");
  std::vector<report::Tile> tiles;
  for (const auto& s : network.scores)
    tiles.push_back({s.name + ", network", fixed(s.value, 3), "95 % of resamples: " + fixed(s.interval.low, 3) + " to " + fixed(s.interval.high, 3)});
  if (has_baseline) {
    const bool better = network.scores[0].value > other.scores[0].value;
    tiles[0].tone = better ? report::Tone::kGood : report::Tone::kBad;
    tiles.push_back({other.scores[0].name + ", baseline", fixed(other.scores[0].value, 3), other.name});
    if (!better) html.notice("The baseline (" + other.name + ") is as good as the network, or better.", report::NoticeKind::kWarning);
  }
  if (!std::isnan(r.dice)) tiles.push_back({"Dice of the outline", fixed(r.dice, 3), "all voxels together"});
  html.tiles(tiles);
  report::Table table;
  table.caption = std::to_string(r.scored) + " patients; in brackets what 95 % of 1000 resamples of them give.";
  for (const auto& s : network.scores)
    if (s.name == "Brier score") table.caption += " Brier score: squared error of predicted survival, mean over the middle 80 % of the event times; lower is better.";
  table.columns = {{"method", report::Align::kText}};
  for (const auto& s : network.scores) table.columns.push_back({s.name});
  for (const auto& m : r.methods) {
    std::vector<report::Cell> row{m.name};
    for (const auto& s : m.scores) row.push_back(with_interval(s));
    row.resize(table.columns.size(), report::Cell(""));
    table.rows.push_back(row);
  }
  html.table(table);
}

// Predicted survival of fifths of the patients beside what Kaplan and Meier saw of them, at the middle time.
void add_calibration(report::HtmlReport& html, const PatientReport& r) {
  constexpr int64_t kGroups = 5;
  if (r.head->cuts.empty() || int64_t(r.known.size()) < 4 * kGroups) return;
  const double time = r.head->cuts[r.head->cuts.size() / 2];
  std::vector<double> told;
  for (const auto& row : r.head->survival(r.outcome, {time})) told.push_back(row[0]);
  if (told.empty()) return;
  report::LinePlot plot;
  plot.title = report::printed("Calibration at time %.4g, by fifths of the patients", time);
  plot.x_label = "predicted share without the event", plot.y_label = "seen (Kaplan-Meier)", plot.width = 560, plot.y_range = {{0.0, 1.0}};
  report::Series series, perfect;
  series.name = "patients", series.points = true, perfect.name = "perfect", perfect.x = {0, 1}, perfect.y = {0, 1};
  for (const auto& point : train::calibration(r.known, told, time, kGroups)) series.x.push_back(point.predicted), series.y.push_back(point.observed);
  plot.series = {perfect, series};
  html.figure(plot);
}

// Kaplan-Meier curves of the thirds by risk.
void add_survival(report::HtmlReport& html, const PatientReport& r) {
  const auto risk = r.head->risk(r.outcome);
  std::vector<size_t> order(risk.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return risk[a] < risk[b]; });
  report::LinePlot plot;
  plot.title = "Without the event, by third of predicted risk (Kaplan-Meier)", plot.x_label = "time", plot.y_label = "share", plot.width = 760, plot.y_range = {{0.0, 1.0}};
  const char* names[] = {"lowest third", "middle third", "highest third"};
  for (size_t third = 0; third < 3; ++third) {
    const auto some = train::select(r.known, {order.begin() + std::ptrdiff_t(third * order.size() / 3), order.begin() + std::ptrdiff_t((third + 1) * order.size() / 3)});
    if (some.size() == 0) return;
    const train::KaplanMeier curve(some);
    report::Series series;
    series.name = names[third];
    double before = 1;
    series.x.push_back(0), series.y.push_back(1);
    for (size_t k = 0; k < curve.times().size(); ++k) {  // steps
      series.x.push_back(curve.times()[k]), series.y.push_back(before);
      series.x.push_back(curve.times()[k]), series.y.push_back(before = curve.probabilities()[k]);
    }
    plot.series.push_back(series);
  }
  html.heading("Survival");
  html.figure(plot);
  add_calibration(html, r);
}

void add_gates(report::HtmlReport& html, const PatientReport& r) {
  if (r.gates.size(1) < 2 || r.config->network.fusion == models::PatientFusion::kConcatenation) return;
  html.heading("Gates");
  html.paragraph("How far the network opens each modality, by patient: 0 is as if it were missing, 1 leaves its attention as it is. A gate is no measure of importance: the table above says what leaving a modality out costs.");
  report::Table table;
  table.columns = {{"modality", report::Align::kText}, {"mean gate"}, {"lowest"}, {"highest"}, {"patients with it"}};
  for (int64_t m = 0; m < r.gates.size(1); ++m) {
    const auto all = r.gates.select(1, m), there = all.masked_select(all > 0);
    const bool any = there.size(0) > 0;
    table.rows.push_back({r.modalities[size_t(m)], any ? fixed(there.mean().item<double>(), 3) : "–", any ? fixed(there.min().item<double>(), 3) : "–",
                          any ? fixed(there.max().item<double>(), 3) : "–", std::to_string(there.size(0))});
  }
  html.table(table);
}

void add_training(report::HtmlReport& html, const PatientReport& r) {
  const auto log = read_columns(r.run / "log.csv"), validation = read_columns(r.run / "validation.csv");
  if (!log.count("step") || !log.count("loss")) return;
  html.heading("Training");
  report::LinePlot loss;
  loss.title = "Training loss (mean of neighbouring steps)", loss.x_label = "step", loss.y_label = "loss", loss.width = 760;
  loss.series = {smoothed("loss", log.at("step"), log.at("loss"), 120)};
  html.figure(loss);
  if (!validation.count("step") || !validation.count("score") || r.methods.empty()) return;
  report::LinePlot score;
  score.title = r.methods[0].scores[0].name + " of the validation patients, who choose the checkpoint", score.x_label = "step", score.width = 760;
  score.series.push_back({"network", validation.at("step"), validation.at("score"), {}, false, true});
  html.figure(score);
}
}  // namespace

void write_patient_report(const std::filesystem::path& file, const PatientReport& r) {
  const auto& columns = r.table->columns;
  report::HtmlReport html(columns.name, "recipe patient, Fovea " + std::string(kVersion));
  if (columns.simulated) html.notice("Simulated patients: every figure here is of made-up data.", report::NoticeKind::kWarning);
  if (r.methods.empty()) html.notice("Nobody was held out and nobody chose the checkpoint: there is nothing to score.", report::NoticeKind::kWarning);
  else add_scores(html, r);
  if (!r.methods.empty() && !r.head->is_class()) add_survival(html, r);
  if (!r.methods.empty()) add_gates(html, r);
  add_training(html, r);
  html.heading("Data and network");
  std::vector<std::pair<std::string, std::string>> facts = {{"patients", std::to_string(r.table->patients.size())}};
  const auto list = [](const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& w : words) text += (text.empty() ? "" : ", ") + w;
    return text.empty() ? std::string("none") : text;
  };
  std::vector<std::string> categories;
  for (const auto& [name, words] : columns.categories) categories.push_back(name);
  facts.insert(facts.end(), {{"images", list(columns.images)}, {"numbers", list(columns.numbers)}, {"categories", list(categories)}, {"texts", list(columns.texts)}});
  html.key_values(facts);
  html.write(file);
}

}  // namespace fovea::recipes
