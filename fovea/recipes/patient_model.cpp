#include "fovea/recipes/patient_model.h"

#include <torch/torch.h>

#include <cmath>
#include <map>

#include "fovea/core/error.h"
#include "fovea/infer/model_folder.h"
#include "fovea/infer/weights.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/config.h"
#include "fovea/io/csv.h"
#include "fovea/recipes/patient_outline.h"
#include "fovea/recipes/patient_train.h"
#include "fovea/train/classification_metrics.h"

namespace fovea::recipes {

namespace fs = std::filesystem;

namespace {
std::string column_of_class(const std::string& name) { return "p_" + name; }
}  // namespace

PatientModel PatientModel::load(const fs::path& path) {
  const auto opened = infer::open_model(path);
  if (opened.recipe.value("recipe", "") != "patient")
    throw ArgumentError(path.string() + ": no model of the recipe 'patient'");
  const std::string where = (path / "config.json").string();
  PatientModel model;
  model.inputs = io::from_json<PatientInputs>(opened.recipe.at("inputs"), where);
  model.head = io::from_json<PatientHead>(opened.recipe.at("head"), where);
  model.network = models::PatientNetwork(io::from_json<models::PatientNetworkConfig>(opened.network.at("config"), where));
  infer::load_weights(*model.network, opened.weights, opened.weights_path.string());
  model.network->eval();
  return model;
}

void PatientModel::save(const fs::path& path, const std::string& model_card) const {
  infer::ModelDescription description;
  description.network = {{"network", "patient"}, {"config", io::to_json(network->config())}};
  description.recipe = {{"recipe", "patient"}, {"inputs", io::to_json(inputs)}, {"head", io::to_json(head)}};
  infer::save_model(path, *network, description, model_card);
}

void write_predictions(const fs::path& file, const data::PatientTable& table, const torch::Tensor& rows, const PatientModel& model,
                       const torch::Tensor& outcome, const torch::Tensor& gates) {
  const auto& head = model.head;
  const auto probabilities = head.probabilities(outcome);
  const auto names = model.inputs.modality_names();
  std::string text = "id";
  if (head.is_class()) {
    text += ",predicted";
    for (const std::string& name : head.classes) text += "," + io::csv_cell(column_of_class(name));
  } else {
    text += ",risk";
    for (const double cut : head.cuts) text += ",survival_" + io::csv_number(cut);
  }
  for (const std::string& name : names) text += "," + io::csv_cell("gate_" + name);
  text += "\n";
  const auto risk = head.is_class() ? std::vector<double>() : head.risk(outcome);
  for (int64_t i = 0; i < rows.size(0); ++i) {
    text += io::csv_cell(table.patients[size_t(rows[i].item<int64_t>())].id);
    text += "," + (head.is_class() ? io::csv_cell(head.classes[size_t(outcome[i].argmax().item<int64_t>())]) : io::csv_number(risk[size_t(i)]));
    for (int64_t k = 0; probabilities.defined() && k < probabilities.size(1); ++k) text += "," + io::csv_number(probabilities[i][k].item<double>());
    for (int64_t m = 0; m < gates.size(1); ++m) text += "," + io::csv_number(gates[i][m].item<double>());
    text += "\n";
  }
  io::write_file(file, text);
}

int64_t predict_patients(const PatientModel& model, const fs::path& where, const fs::path& output, const fs::path& outlines) {
  const auto table = data::open_patients(where, model.inputs.columns, {.need_outcome = false});
  const auto patients = encode(table, model.inputs);
  if (!outlines.empty()) write_outlines(model, table, patients, outlines);
  const auto rows = torch::arange(int64_t(table.patients.size()));
  const auto answers = answer_patients(*model.network.ptr(), patients, rows);
  write_predictions(output, table, rows, model, answers.outcome, answers.gates);
  return rows.size(0);
}

std::vector<PatientScore> evaluate_predictions(const fs::path& predictions, const data::PatientTable& table) {
  const auto csv = io::read_csv(predictions);
  std::map<std::string, int64_t> row_of;
  for (size_t r = 0; r < table.patients.size(); ++r) row_of[table.patients[r].id] = int64_t(r);
  std::vector<int64_t> rows;
  for (size_t i = 0; i < csv.rows(); ++i) {
    const std::string& id = csv.cell(i, csv.column("id"));
    const auto found = row_of.find(id);
    if (found == row_of.end()) throw IoError(predictions, "patient '" + id + "' is not in " + table.file.string());
    rows.push_back(found->second);
  }
  if (rows.empty()) throw IoError(predictions, "has no patients");
  PatientHead head;
  std::vector<torch::Tensor> columns;
  const auto column = [&](const std::string& name) { return torch::tensor(csv.numbers(csv.column(name)), torch::kDouble); };
  EncodedPatients known;
  if (table.columns.has_label()) {
    head.classes = table.columns.classes;
    for (const std::string& name : head.classes) columns.push_back(column(column_of_class(name)).log());
    std::vector<int64_t> label;
    for (const auto& one : table.patients) label.push_back(one.label.value_or(-1));
    known.label = torch::tensor(label, torch::kLong);
  } else {
    head.kind = PatientOutcome::kCox;
    columns.push_back(column("risk"));
    std::vector<double> time, event;
    for (const auto& one : table.patients) time.push_back(one.time.value_or(NAN)), event.push_back(one.event.value_or(false));
    known.time = torch::tensor(time, torch::kDouble), known.event = torch::tensor(event, torch::kDouble).to(torch::kBool);
  }
  return score_outcome(head, torch::stack(columns, 1), known, torch::tensor(rows, torch::kLong));
}

}  // namespace fovea::recipes
