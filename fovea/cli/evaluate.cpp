#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"
#include "fovea/core/progress.h"
#include "fovea/data/dataset.h"
#include "fovea/data/patient_table.h"
#include "fovea/io/json_file.h"
#include "fovea/recipes/evaluate.h"
#include "fovea/recipes/patient_model.h"
#include "fovea/recipes/segment_report.h"
#include "fovea/recipes/segment_train.h"
#include "fovea/recipes/slide_model.h"
#include "fovea/recipes/station_model.h"

namespace fovea::cli {

namespace {
namespace fs = std::filesystem;

struct EvaluateArguments {
  CommonOptions common;
  fs::path predictions, references, dataset, output, report;
  std::vector<std::string> labels, baselines;
  std::string convention, policy = "nan-excluded";
  std::vector<double> tolerances_mm;
  recipes::SegmentReport content;
};

// "1=anterior" or "1+2=whole".
recipes::EvaluationLabel parse_label(const std::string& text) {
  const size_t equals = text.find('=');
  recipes::EvaluationLabel label;
  label.name = equals == text.npos ? text : text.substr(equals + 1);
  const std::string values = text.substr(0, equals);
  for (size_t at = 0; at <= values.size();) {
    const size_t end = std::min(values.find('+', at), values.size());
    const std::string word = values.substr(at, end - at);
    if (word.empty() || word.find_first_not_of("0123456789") != word.npos || word.size() > 6)
      throw ArgumentError("evaluate: --label " + text + ", expected VALUE or VALUE=NAME, e.g. 1=anterior or 1+2=whole");
    label.values.push_back(std::stoll(word));
    at = end + 1;
  }
  return label;
}

std::vector<recipes::EvaluationLabel> labels_of(const EvaluateArguments& a) {
  std::vector<recipes::EvaluationLabel> labels;
  for (const std::string& text : a.labels) labels.push_back(parse_label(text));
  if (labels.empty() && !a.dataset.empty()) labels = recipes::evaluation_labels(data::open_dataset(a.dataset).labels);
  if (labels.empty()) throw ArgumentError("evaluate: no structures to score; give --dataset, or --label 1=NAME for each");
  return labels;
}

// What is wrong with the flags is said before the work, not after it.
void check_outputs(const EvaluateArguments& a) {
  for (const std::string& text : a.baselines)
    if (text.find('=') == text.npos) throw ArgumentError("evaluate: --baseline " + text + ", expected NAME=FOLDER");
  if (!a.report.empty() && a.content.run.empty()) throw ArgumentError("evaluate: --report needs --run, the folder that train wrote");
  for (const fs::path& file : {a.output, a.report}) require_folder_of(file);
}

// What a table of predictions reaches against a table of patients, slides or stations.
template <class Scores>
void show_scores(const EvaluateArguments& a, const Scores& scores) {
  io::Json json = io::Json::object();
  for (const auto& s : scores) json[s.name] = {{"value", s.value}, {"low", s.interval.low}, {"high", s.interval.high}};
  if (!a.output.empty()) io::write_json(a.output, json);
  if (a.common.json) return void(std::printf("%s\n", json.dump(2).c_str()));
  for (const auto& s : scores) {
    std::printf("%-10s %.3f", s.name.c_str(), s.value);
    if (std::isfinite(s.interval.low)) std::printf(" (95 %% of resamples: %.3f to %.3f)", s.interval.low, s.interval.high);
    std::printf("\n");
  }
}

void run(EvaluateArguments& a) {
  a.common.apply();
  if (recipes::is_station_prediction(a.predictions)) {
    if (!a.output.empty()) require_folder_of(a.output);
    return show_scores(a, recipes::evaluate_station_predictions(a.predictions, a.references));
  }
  const bool slides = data::is_slide_table(a.references);
  if (slides || data::is_patient_table(a.references)) {
    if (!a.output.empty()) require_folder_of(a.output);
    return slides ? show_scores(a, recipes::evaluate_slide_predictions(a.predictions, data::open_slides(a.references)))
                  : show_scores(a, recipes::evaluate_predictions(a.predictions, data::open_patients(a.references)));
  }
  check_outputs(a);
  const auto labels = labels_of(a);
  recipes::EvaluateOptions options;
  options.policy = train::empty_policy(a.policy);
  if (!a.convention.empty()) options.metrics.convention = train::surface_convention(a.convention);
  if (!a.tolerances_mm.empty()) options.metrics.tolerances_mm = a.tolerances_mm;
  Progress bar("evaluate", 0);
  options.progress = [&](int64_t done, int64_t total) { bar.set_fraction(double(done) / double(total)); };
  auto score = [&](const fs::path& folder) { return recipes::evaluate_folders(folder, a.references, labels, options); };
  const auto evaluation = score(a.predictions);
  for (const std::string& text : a.baselines) {
    const size_t equals = text.rfind('=');
    a.content.baselines.push_back({text.substr(0, equals), score(text.substr(equals + 1))});
  }
  bar.finish();
  if (!a.output.empty()) recipes::write_summary(a.output, evaluation);
  if (a.common.json) std::printf("%s\n", recipes::summary_json(evaluation).dump(2).c_str());
  else std::printf("%s", recipes::summary_text(evaluation).c_str());
  if (a.report.empty()) return;
  a.content.evaluation = evaluation;
  if (!a.content.image.empty()) {
    const auto& first = evaluation.cases.front();
    a.content.prediction = first.prediction, a.content.reference = first.reference;
  }
  if (fs::exists(a.predictions / "prediction.json")) a.content.prediction_log = a.predictions / "prediction.json";
  recipes::write_segment_report(a.report, a.content);
  if (!a.common.json) std::printf("%s\n", a.report.c_str());
}
}  // namespace

void add_evaluate(CLI::App& program) {
  auto a = std::make_shared<EvaluateArguments>();
  CLI::App* command = program.add_subcommand("evaluate",
      "Example: fovea evaluate -p predictions -r labelsTs -d Dataset004_Hippocampus -o summary.json\n\n"
      "Scores label files against references: Dice, IoU, HD95, NSD with exact surface distances; writes nnU-Net's summary.json.\n"
      "Or predictions of patients or slides: fovea evaluate -p predictions.csv -r FOLDER, with FOLDER/patients.csv or slides.csv;\n"
      "of stations: fovea evaluate -p told.csv -r measured.csv.");
  command->add_option("-p,--predictions", a->predictions, "folder of predicted labels, or predictions.csv")->required();
  command->add_option("-r,--references", a->references, "folder of reference labels, same names, with patients.csv or slides.csv, or measurements of stations")->required();
  command->add_option("-d,--dataset", a->dataset, "dataset that names the structures");
  command->add_option("--label", a->labels, "structure to score: 1=anterior, or 1+2=whole for a region")->take_all();
  command->add_option("-o,--output", a->output, "summary.json");
  command->add_option("--empty", a->policy, "structures missing on one side: nan-excluded or penalised")->capture_default_str();
  command->add_option("--convention", a->convention, "surface distances as defined by surface-distance, monai or simpleitk");
  command->add_option("--tolerance", a->tolerances_mm, "of NSD in mm")->delimiter(',')->check(CLI::Range(0.0, 1000.0));
  command->add_option("--report", a->report, "also write report.html")->group("Report");
  command->add_option("--run", a->content.run, "run folder that train wrote")->group("Report");
  command->add_option("--baseline", a->baselines, "a simple method to compare with: NAME=FOLDER of its labels")->take_all()->group("Report");
  command->add_option("--image", a->content.image, "scan of the first case, to draw")->group("Report");
  command->add_option("--attention", a->content.attention, "folder that explain wrote")->group("Report");
  command->add_option("--note", a->content.notes, "a line that the report begins with")->take_all()->group("Report");
  a->common.add_to(*command);
  command->callback([a] { run(*a); });
}

}  // namespace fovea::cli
