#include "fovea/recipes/segment_report.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <sstream>

#include "fovea/core/error.h"
#include "fovea/core/version.h"
#include "fovea/io/image.h"
#include "fovea/io/json_file.h"
#include "fovea/recipes/training_log.h"
#include "fovea/report/html.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace fs = std::filesystem;

namespace {
using io::Json;
using report::fixed;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

double number(const Json& json, const char* key) {
  return json.is_object() && json.contains(key) && json[key].is_number() ? json[key].get<double>() : kNan;
}

// Foreground classes in the order of the plan.
struct Named {
  int value;
  std::string name;
};

std::vector<Named> foreground(const Json& config) {
  std::vector<Named> names;
  const Json& labels = config["plan"]["labels"];
  for (size_t k = 1; k < labels.size(); ++k) names.push_back({labels[k]["values"][0].get<int>(), labels[k]["name"].get<std::string>()});
  return names;
}

// Mean of a metric over the cases, undefined values left out.
double mean_of(const Evaluation& e, size_t label, const char* metric) {
  for (const MetricSummary& s : summarise(e, label))
    if (s.metric == metric) return s.nan_excluded.mean;
  return kNan;
}

double mean_of(const Evaluation& e, const char* metric) {
  double sum = 0;
  int n = 0;
  for (size_t label = 0; label < e.labels.size(); ++label)
    if (const double v = mean_of(e, label, metric); std::isfinite(v)) sum += v, ++n;
  return n ? sum / n : kNan;
}

void add_metrics(report::HtmlReport& html, const Evaluation& ours, const std::vector<SegmentReport::Baseline>& baselines) {
  html.heading("Result on held-out data");
  const double dice = mean_of(ours, "Dice");
  double best_baseline = kNan;
  for (const auto& b : baselines) best_baseline = std::fmax(best_baseline, mean_of(b.evaluation, "Dice"));
  const auto tone = baselines.empty() ? report::Tone::kPlain : dice > best_baseline ? report::Tone::kGood : report::Tone::kBad;
  std::vector<report::Tile> tiles = {{"mean Dice, network", fixed(dice, 3), std::to_string(ours.cases.size()) + (ours.cases.size() == 1 ? " case" : " cases"), tone}};
  for (const auto& b : baselines) tiles.push_back({"mean Dice, baseline", fixed(mean_of(b.evaluation, "Dice"), 3), b.name, report::Tone::kPlain});
  tiles.push_back({"mean HD95, network", fixed(mean_of(ours, "HD95_mm"), 2) + " mm", "95 % surface distance", report::Tone::kPlain});
  html.tiles(tiles);
  if (best_baseline >= dice) html.notice("A baseline is better than the network here.", report::NoticeKind::kWarning);

  report::Table table;
  table.caption = "Dice is 1 for perfect overlap; HD95 is the 95 % surface distance (" + train::name_of(ours.options.metrics.convention) +
                  " convention). Undefined values of empty structures are left out.";
  table.columns = {{"structure", report::Align::kText}, {"Dice"}};
  report::BarPlot bars;
  bars.title = "Dice by structure", bars.y_label = "Dice", bars.y_range = {{0.0, 1.0}}, bars.width = 900;
  bars.bars = {{"network", {}, {}, {}, {}}};
  for (const auto& b : baselines) {
    table.columns.push_back({"Dice, " + b.name});
    bars.bars.push_back({b.name, {}, {}, {}, {}});
  }
  table.columns.push_back({"HD95 mm"});
  for (const auto& b : baselines) table.columns.push_back({"HD95 mm, " + b.name});
  auto add_row = [&](const std::string& name, const std::function<double(const Evaluation&, const char*)>& value) {
    std::vector<report::Cell> row = {name};
    for (const char* metric : {"Dice", "HD95_mm"}) {
      const double mine = value(ours, metric);
      const int decimals = metric[0] == 'D' ? 3 : 2;
      bool wins = !baselines.empty();
      for (const auto& b : baselines) wins &= metric[0] == 'D' ? mine > value(b.evaluation, metric) : mine < value(b.evaluation, metric);
      row.push_back({fixed(mine, decimals), wins ? report::Tone::kGood : report::Tone::kPlain});
      for (const auto& b : baselines) row.push_back(fixed(value(b.evaluation, metric), decimals));
    }
    table.rows.push_back(row);
  };
  for (size_t label = 0; label < ours.labels.size(); ++label) {
    add_row(ours.labels[label].name, [&](const Evaluation& e, const char* metric) { return mean_of(e, label, metric); });
    bars.categories.push_back(ours.labels[label].name);
    bars.bars[0].values.push_back(mean_of(ours, label, "Dice"));
    for (size_t b = 0; b < baselines.size(); ++b) bars.bars[b + 1].values.push_back(mean_of(baselines[b].evaluation, label, "Dice"));
  }
  add_row("mean", [](const Evaluation& e, const char* metric) { return mean_of(e, metric); });
  table.last_row_is_total = true;
  html.table(table);
  if (ours.labels.size() <= 12) html.figure(bars);
}

void add_slices(report::HtmlReport& html, const SegmentReport& content, const std::vector<Named>& labels) {
  const Volume image = io::read_image(content.image), prediction = io::read_image(content.prediction);
  if (!same_grid(image.geometry, prediction.geometry))
    throw IoError(content.prediction, "lies on another grid than " + content.image.string() + ": " + to_string(prediction.geometry) + "; " + to_string(image.geometry));
  std::vector<report::LabelStyle> styles, outline;
  for (size_t i = 0; i < labels.size(); ++i) {
    styles.push_back({labels[i].value, labels[i].name, report::category_colour(int(i))});
    outline.push_back({labels[i].value, labels[i].name, {255, 255, 255}});
  }
  report::Scene scene(image);
  scene.labels.push_back({report::Voxels(prediction), styles, 0.4, false});
  std::optional<Volume> reference;
  if (!content.reference.empty()) {
    reference = io::read_image(content.reference);
    scene.labels.push_back({report::Voxels(*reference), outline, 0, true});
  }
  html.heading("The scan");
  html.paragraph(std::string("Colour: prediction.") + (reference ? " White line: reference." : "") + " " + to_string(report::Convention::kRadiological) + ".");
  html.legend(styles);
  for (const auto plane : {report::Plane::kAxial, report::Plane::kCoronal, report::Plane::kSagittal}) {
    std::vector<report::HtmlReport::Panel> panels;
    for (const auto& voxel : report::slices_through(scene, scene.labels.front(), plane, 4)) {
      report::SliceOptions options;
      options.pixel_mm = 0.5;
      panels.push_back({report::draw_slice(scene, plane, voxel, options), to_string(plane) + " slice with predicted structures", ""});
    }
    html.gallery(panels, to_string(plane));
  }
}

void add_attention(report::HtmlReport& html, const fs::path& folder) {
  const Json explained = io::read_json(folder / "explain.json");
  const Volume image = io::read_image(explained["image"].get<std::string>());
  html.heading("What the network looks at");
  const auto& at = explained["voxel_zyx"];
  const std::array<int64_t, 3> voxel{at[0], at[1], at[2]};
  const auto& mm = explained["voxel_mm"];
  html.paragraph("Exact attention weights of the tokens that hold the marked voxel (" + fixed(mm[0], 1) + ", " + fixed(mm[1], 1) + ", " + fixed(mm[2], 1) +
                 " mm RAS), mean over heads, one picture a block; recomputed from the very arguments of the fused operator.");
  report::Table table;
  table.caption = "Heads at this voxel: entropy of the weights, the number of keys it amounts to, and how far away they lie.";
  table.columns = {{"block", report::Align::kText}, {"head"}, {"entropy (nats)"}, {"effective keys"}, {"of"}, {"mean distance (mm)"}};
  for (const Json& block : explained["blocks"]) {
    const Volume map = io::read_image(folder / block["file"].get<std::string>());
    Volume mean = Volume::zeros(map.geometry, DType::kF32);
    const auto from = map.as<float>();
    auto to = mean.as<float>();
    for (int64_t c = 0; c < map.channels; ++c)
      for (size_t i = 0; i < to.size(); ++i) to[i] += from[size_t(c) * to.size() + i] / float(map.channels);
    report::Scene scene(image);
    scene.heat = report::HeatLayer{report::Voxels(mean)};
    report::SliceOptions options;
    options.crosshair = true;
    html.figure(report::draw_three_planes(scene, voxel, options), "attention of " + block["name"].get<std::string>() + " over the scan", block["name"].get<std::string>());
    int head = 0;
    for (const Json& h : block["heads"])
      table.rows.push_back({block["name"].get<std::string>(), std::to_string(head++), fixed(number(h, "entropy_nats"), 2), fixed(number(h, "effective_keys"), 1),
                            std::to_string(h.value("keys", 0)), fixed(number(h, "mean_distance_mm"), 1)});
  }
  html.heat_legend("0", "largest weight of each picture");
  html.details("Head report", [&] { html.table(table); });
}

void add_curves(report::HtmlReport& html, const fs::path& run, const std::vector<Named>& labels, bool pretrained) {
  const auto log = read_columns(run / "log.csv"), validation = read_columns(run / "validation.csv");
  if (!log.count("step") || !log.count("loss")) return;
  html.heading("Training");
  report::LinePlot loss;
  loss.title = "Training loss (mean of neighbouring steps)", loss.x_label = "step", loss.y_label = "loss", loss.width = 760;
  loss.series = {smoothed(pretrained ? "mean square error of hidden patches" : "Dice + cross-entropy", log.at("step"), log.at("loss"), 120)};
  html.figure(loss);
  if (validation.count("step") && validation.count("dice")) {
    report::LinePlot dice;
    dice.title = "Dice on held-out cases (network's grid)", dice.x_label = "step", dice.y_label = "Dice", dice.width = 760;
    dice.series.push_back({"mean", validation.at("step"), validation.at("dice"), {}, false, true});
    for (const Named& label : labels)
      if (validation.count("dice/" + label.name) && labels.size() <= 8)
        dice.series.push_back({label.name, validation.at("step"), validation.at("dice/" + label.name), {}, true, false});
    html.figure(dice);
  }
  if (validation.count("step") && validation.count("error")) {
    report::LinePlot error;
    error.title = "Mean square error of hidden patches, held-out cases", error.x_label = "step", error.width = 760;
    error.series.push_back({"held out", validation.at("step"), validation.at("error"), {}, false, true});
    html.figure(error);
  }
  if (log.count("learning_rate")) {
    report::LinePlot rate;
    rate.title = "Learning rate", rate.x_label = "step", rate.width = 760, rate.height = 180;
    rate.series = {smoothed("learning rate", log.at("step"), log.at("learning_rate"), 200)};
    html.details("Learning rate", [&] { html.figure(rate); });
  }
}

void add_prediction(report::HtmlReport& html, const fs::path& path) {
  const Json log = io::read_json(path);
  html.heading("Time and memory of prediction");
  report::Table table;
  table.columns = {{"case", report::Align::kText}};
  const Json& cases = log["cases"];
  if (cases.empty()) return;
  for (const auto& [stage, seconds] : cases[0]["stages_s"].items()) table.columns.push_back({stage + " (s)"});
  for (const char* name : {"total (s)", "windows", "peak memory (GiB)", "predicted (GiB)"}) table.columns.push_back({name});
  constexpr double kGib = 1024.0 * 1024 * 1024;
  for (const Json& one : cases) {
    std::vector<report::Cell> row = {one["id"].get<std::string>()};
    for (const auto& [stage, seconds] : one["stages_s"].items()) row.push_back(fixed(seconds, 2));
    row.insert(row.end(), {fixed(number(one, "seconds"), 2), std::to_string(one["windows"].get<int64_t>()), fixed(number(one, "peak_bytes") / kGib, 2),
                           fixed(number(one, "predicted_peak_bytes") / kGib, 2)});
    table.rows.push_back(row);
  }
  table.caption = "Scores at full resolution would have taken " + fixed(number(cases[0], "dense_score_bytes") / kGib, 2) + " GiB for the first case; they are never stored.";
  html.table(table);
  if (!log.contains("convolutions") || log["convolutions"].empty()) return;
  html.details("How each 3x3x3 convolution was computed", [&] {
    report::Table forms;
    forms.columns = {{"layer", report::Align::kText}, {"form", report::Align::kText}};
    for (const auto& [layer, form] : log["convolutions"].items()) forms.rows.push_back({layer, form.get<std::string>()});
    forms.caption = "F(z,y,x): Winograd tiles of that many outputs; direct: a sum over the 27 taps. FOVEA_CONV=direct turns Winograd off.";
    html.table(forms);
  });
}

void add_provenance(report::HtmlReport& html, const fs::path& run, const Json& config) {
  const Json manifest = io::read_json(run / "manifest.json");
  html.heading("How to repeat it");
  html.code(manifest.value("command", ""));
  const auto timing = read_columns(run / "timing.csv");
  std::vector<std::pair<std::string, std::string>> facts = {{"Fovea", manifest.value("fovea", "?")}, {"libtorch", manifest.value("torch", "?")},
      {"processor", manifest.value("cpu", "?")}, {"instruction set", manifest.value("isa", "?")},
      {"threads", std::to_string(manifest.value("threads", 0))}, {"seed", std::to_string(manifest.value("seed", uint64_t{0}))},
      {"network", config["plan"].value("network", "?")}};
  if (timing.count("seconds") && !timing.at("seconds").empty()) facts.push_back({"training time", fixed(timing.at("seconds").back(), 0) + " s"});
  html.key_values(facts);
  html.details("Data and program (SHA-256)", [&] {
    report::Table table;
    table.columns = {{"file", report::Align::kText}, {"bytes"}, {"SHA-256", report::Align::kText}};
    for (const char* part : {"data", "binary", "weights"})
      for (const Json& file : manifest.value(part, Json::array()))
        table.rows.push_back({file.value("path", "?"), std::to_string(file.value("bytes", int64_t{0})), file.value("sha256", "?")});
    html.table(table);
  });
  html.details("Configuration", [&] { html.code(config.dump(2)); });
}
}  // namespace

void write_segment_report(const fs::path& output, const SegmentReport& content) {
  const Json config = io::read_json(content.run / "config.json");
  const auto labels = foreground(config);
  const bool pretrained = config.value("pretrain", Json::object()).value("ratio", 0.0) > 0;
  report::HtmlReport html((pretrained ? "Pretraining on " : "Segmentation of ") + config["plan"].value("dataset", "?"), std::string("Fovea ") + kVersion);
  const int64_t cases = config["plan"]["fingerprint"].value("cases", int64_t{0});
  if (cases == 1) html.notice("Trained on one subject: this shows that the method works, not how well it would do on others.", report::NoticeKind::kWarning);
  for (const std::string& note : content.notes) html.notice(note);
  if (content.evaluation) add_metrics(html, *content.evaluation, content.baselines);
  if (!content.image.empty() && !content.prediction.empty()) add_slices(html, content, labels);
  if (!content.attention.empty()) add_attention(html, content.attention);
  if (content.rebuilt) {
    html.heading("A held-out patch");
    html.figure(*content.rebuilt, "a slice of a held-out patch, what was visible, and what was rebuilt", "Its middle slice; what was visible; the rest rebuilt from that.");
  }
  add_curves(html, content.run, labels, pretrained);
  if (!content.prediction_log.empty()) add_prediction(html, content.prediction_log);
  add_provenance(html, content.run, config);
  html.write(output);
}

}  // namespace fovea::recipes
