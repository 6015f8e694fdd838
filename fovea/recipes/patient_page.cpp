#include "fovea/recipes/patient_page.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "fovea/core/error.h"
#include "fovea/core/version.h"
#include "fovea/recipes/patient_train.h"
#include "fovea/report/html.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::fixed;

const data::Patient& find_patient(const data::PatientTable& table, const std::string& id) {
  for (const auto& one : table.patients)
    if (one.id == id) return one;
  std::vector<std::string> ids;
  for (const auto& one : table.patients) ids.push_back(one.id);
  const auto nearest = nearest_name(id, ids);
  throw ArgumentError("explain: no patient '" + id + "' in " + table.file.string() + (nearest.empty() ? "" : "; did you mean '" + nearest + "'?"));
}

std::string answer_text(const PatientHead& head, const torch::Tensor& outcome) {
  if (!head.is_class()) return fixed(head.risk(outcome)[0], 3);
  const auto p = outcome.softmax(1)[0];
  const int64_t best = p.argmax().item<int64_t>();
  return head.classes[size_t(best)] + " " + fixed(p[best].item<double>(), 3);
}

// The number that changes when a modality is left out: log hazard ratio or risk, or the probability of the class predicted.
double answer_number(const PatientHead& head, const torch::Tensor& outcome, int64_t predicted) {
  return head.is_class() ? outcome.softmax(1)[0][predicted].item<double>() : head.risk(outcome)[0];
}

void add_prediction(report::HtmlReport& html, const PatientModel& model, const PatientExplanation& e) {
  html.heading("Prediction");
  std::vector<report::Tile> tiles;
  if (model.head.is_class()) {
    for (size_t k = 0; k < model.head.classes.size(); ++k) tiles.push_back({model.head.classes[k], fixed(e.probabilities[0][int64_t(k)].item<double>(), 3), "probability"});
  } else {
    tiles.push_back({"risk", fixed(model.head.risk(e.outcome)[0], 3), model.head.kind == PatientOutcome::kCox ? "log hazard ratio; 0 is nobody in particular" : "higher is earlier"});
  }
  html.tiles(tiles);
  if (model.head.is_class() || !e.probabilities.defined()) return;
  report::LinePlot plot;
  plot.title = "Predicted probability of living without the event", plot.x_label = "time", plot.y_range = {{0.0, 1.0}}, plot.width = 760;
  report::Series series{"patient", {0}, {1}, {}, false, true};
  for (size_t k = 0; k < model.head.cuts.size(); ++k) series.x.push_back(model.head.cuts[k]), series.y.push_back(e.probabilities[0][int64_t(k)].item<double>());
  plot.series = {series};
  html.figure(plot);
}

void add_modalities(report::HtmlReport& html, const PatientModel& model, const PatientExplanation& e) {
  html.heading("What it rests on");
  const auto names = model.inputs.modality_names();
  const auto& places = model.network->modalities();
  const int64_t predicted = e.outcome.argmax(1).item<int64_t>();
  const double whole = answer_number(model.head, e.outcome, predicted);
  report::Table table;
  table.caption = "Gate: how far the network opens the modality for this patient, 0 as if it were missing. Attention: the class token's in the last block, mean over heads; what is left goes to the class token itself. "
                  "Neither is importance: the last columns are the prediction without the modality, and by how much it changes.";
  table.columns = {{"modality", report::Align::kText}, {"gate"}, {"attention"}, {"prediction without it"}, {"change"}};
  for (size_t m = 0; m < names.size(); ++m) {
    const bool there = e.gates[int64_t(m)].item<double>() > 0;
    if (!there) {
      table.rows.push_back({{names[m], report::Tone::kMuted}, {"missing", report::Tone::kMuted}, "–", "–", "–"});
      continue;
    }
    table.rows.push_back({names[m], fixed(e.gates[int64_t(m)].item<double>(), 3), fixed(e.attention.narrow(0, places[m].first, places[m].count).sum().item<double>(), 3),
                          answer_text(model.head, e.without[m]), report::printed("%+.3f", answer_number(model.head, e.without[m], predicted) - whole)});
  }
  html.table(table);
}

std::array<int64_t, 3> index_of(int64_t voxel, const std::array<int64_t, 3>& shape) {
  return {voxel / (shape[1] * shape[2]), voxel / shape[2] % shape[1], voxel % shape[2]};
}

// Attention of the class token on the first image's cells, drawn on what the network saw.
void add_scan(report::HtmlReport& html, const PatientModel& model, const PatientExplanation& e) {
  if (model.inputs.columns.images.empty() || !e.patient.inputs.images_present[0][0].item<bool>()) return;
  html.heading("The scan");
  const auto& place = model.network->modalities()[0];
  const auto grid = model.network->token_grid();
  const auto cells = e.attention.narrow(0, place.first, place.count).view({1, 1, grid[0], grid[1], grid[2]});
  const Geometry& g = e.patient.grids[0];
  const auto map = torch::nn::functional::interpolate(cells, torch::nn::functional::InterpolateFuncOptions().size(std::vector<int64_t>{g.shape[0], g.shape[1], g.shape[2]}).mode(torch::kTrilinear).align_corners(false))
                       .contiguous();
  const auto voxels = e.patient.inputs.images[0][0].contiguous();
  const auto view = [&](const torch::Tensor& t) { return View<const float, 3>::contiguous(t.data_ptr<float>(), g.shape); };
  report::Scene scene(report::Voxels(view(voxels)), g);
  torch::Tensor labels;  // outlives the scene
  std::array<int64_t, 3> at = index_of(map.flatten().argmax().item<int64_t>(), g.shape);
  const Point peak_mm = g.to_mm({double(at[2]), double(at[1]), double(at[0])});
  if (e.patient.masks.defined() && (e.patient.masks[0] == 1).any().item<bool>()) {
    labels = (e.patient.masks[0] == 1).to(torch::kUInt8).contiguous();
    scene.labels.push_back({report::Voxels(View<const uint8_t, 3>::contiguous(labels.data_ptr<uint8_t>(), g.shape)), report::label_styles({"mask"}), 0, true});
    const auto inside = labels.nonzero().to(torch::kDouble).mean(0);
    for (int a = 0; a < 3; ++a) at[size_t(a)] = std::llround(inside[a].item<double>());
  }
  report::SliceOptions options;
  const auto spacing = g.spacing_mm();
  options.pixel_mm = *std::min_element(spacing.begin(), spacing.end()) / 8;
  const std::string& name = model.inputs.columns.images[0];
  html.figure(report::draw_three_planes(scene, at, options), name + " as the network saw it", name + " as the network saw it" + (labels.defined() ? "; the outline is the mask" : "") + ".");
  scene.heat = report::HeatLayer{report::Voxels(view(map)), 0, 0.6};
  html.figure(report::draw_three_planes(scene, at, options), "attention of the class token on " + name,
              "The same with the class token's attention to each cell, last block, mean over heads. It looks most at (" + fixed(peak_mm[0], 0) + ", " + fixed(peak_mm[1], 0) + ", " + fixed(peak_mm[2], 0) + ") mm RAS; equal weights would be " +
                  fixed(cells.sum().item<double>() / double(cells.numel()), 4) + " each.");
  html.heat_legend("0", "largest weight, " + fixed(map.max().item<double>(), 4));
}

void add_table(report::HtmlReport& html, const PatientModel& model, const PatientExplanation& e, const data::Patient& patient) {
  const auto names = model.inputs.modality_names();
  const auto at = std::find(names.begin(), names.end(), "table");
  if (at == names.end()) return;
  html.heading("Values of the table");
  const auto& place = model.network->modalities()[size_t(at - names.begin())];
  report::Table table;
  table.caption = "Attention of the class token in the last block, mean over heads. A missing value has a token of its own; nothing is filled in.";
  table.columns = {{"column", report::Align::kText}, {"value"}, {"training mean"}, {"attention"}};
  int64_t token = place.first;
  const auto& columns = model.inputs.columns;
  for (size_t c = 0; c < columns.numbers.size(); ++c) {
    const double v = patient.numbers[c];
    table.rows.push_back({columns.numbers[c], std::isnan(v) ? report::Cell("missing", report::Tone::kMuted) : report::Cell(report::compact(v, 5)), report::compact(model.inputs.numbers.mean[c], 5), fixed(e.attention[token++].item<double>(), 4)});
  }
  size_t c = 0;
  for (const auto& [name, words] : columns.categories) {
    const int64_t code = patient.codes[c++];
    table.rows.push_back({name, code < 0 ? report::Cell("missing", report::Tone::kMuted) : report::Cell(words[size_t(code)]), "", fixed(e.attention[token++].item<double>(), 4)});
  }
  html.table(table);
}

void add_words(report::HtmlReport& html, const PatientModel& model, const PatientExplanation& e, const data::Patient& patient) {
  if (model.inputs.vocabulary.empty()) return;
  html.heading("The text");
  bool any = false;
  for (const std::string& text : patient.texts)
    if (!text.empty()) html.paragraph(text), any = true;
  if (!any) return html.paragraph("No text.");
  const auto& place = model.network->modalities().back();
  const auto ids = e.patient.inputs.text[0];
  std::vector<std::pair<double, std::string>> words;
  for (int64_t t = 0; t < place.count; ++t)
    if (const int64_t id = ids[t].item<int64_t>(); id > 0) words.push_back({e.attention[place.first + t].item<double>(), model.inputs.vocabulary[size_t(id)]});
  report::Table table;
  table.caption = "Word pieces in the order of the text, with the class token's attention (last block, mean over heads).";
  table.columns = {{"piece", report::Align::kText}, {"attention"}};
  double most = 0;
  for (const auto& [weight, word] : words) most = std::max(most, weight);
  for (const auto& [weight, word] : words) table.rows.push_back({{word, weight == most ? report::Tone::kGood : report::Tone::kPlain}, {fixed(weight, 4), weight == most ? report::Tone::kGood : report::Tone::kPlain}});
  html.table(table);
}
}  // namespace

PatientExplanation explain_patient(const PatientModel& model, const data::PatientTable& table, const std::string& id) {
  data::PatientTable one = table;
  one.patients = {find_patient(table, id)};
  if (model.network->config().fusion == models::PatientFusion::kConcatenation)
    throw ArgumentError("explain: this network concatenates its modalities and has no attention to show; train one with network.fusion = class_token");
  PatientExplanation out;
  out.id = id, out.patient = encode(one, model.inputs);
  auto& network = *model.network.ptr();
  const auto row = torch::zeros({1}, torch::kLong);
  network.set_capture(true);
  const auto answer = answer_patients(network, out.patient, row);
  out.attention = network.class_rows()[-1][0].mean(0);
  network.set_capture(false);
  out.outcome = answer.outcome, out.gates = answer.gates[0], out.probabilities = model.head.probabilities(answer.outcome);
  for (size_t m = 0; m < network.modalities().size(); ++m) out.without.push_back(answer_patients(network, without_modality(out.patient, m), row).outcome);
  return out;
}

void write_patient_page(const std::filesystem::path& file, const PatientModel& model, const data::PatientTable& table, const std::string& id) {
  const auto explanation = explain_patient(model, table, id);
  const data::Patient& patient = find_patient(table, id);
  report::HtmlReport html("Patient " + id, "model learnt on: " + model.inputs.columns.name + "; Fovea " + std::string(kVersion));
  html.notice("Not a medical device: research only.");
  if (model.simulated()) html.notice("The model was trained on simulated patients, and is of no use for real ones.", report::NoticeKind::kWarning);
  add_prediction(html, model, explanation);
  add_modalities(html, model, explanation);
  add_scan(html, model, explanation);
  add_table(html, model, explanation, patient);
  add_words(html, model, explanation, patient);
  html.write(file);
}

}  // namespace fovea::recipes
