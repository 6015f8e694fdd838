#include "fovea/recipes/patient_train.h"

#include "fovea/core/error.h"
#include "fovea/io/config.h"
#include "fovea/recipes/patient_baseline.h"
#include "fovea/recipes/patient_model.h"
#include "fovea/recipes/patient_report.h"

namespace fovea::recipes {

namespace fs = std::filesystem;

namespace {
std::string model_card(const data::PatientTable& table, const PatientTrainResult& result, int64_t learnt_from) {
  std::string card = "# " + table.columns.name + "\n\nA network of patients trained by Fovea.\n\n";
  if (table.columns.simulated) card += "**Learnt on simulated patients: of no use for real ones.**\n\n";
  card += "- Training patients: " + std::to_string(learnt_from) + "\n- Optimizer steps: " + std::to_string(result.training.step) + "\n";
  for (const auto& score : result.scores) card += "- " + score.name + ": " + std::to_string(score.value) + "\n";
  return card + "\nNot a medical device. Weights may carry traces of the training data (membership inference is not prevented).\n";
}

io::Json metrics_json(const PatientReport& report) {
  io::Json json = io::Json::object();
  for (const auto& method : report.methods)
    for (const auto& score : method.scores)
      json[method.name][score.name] = {{"value", score.value}, {"low", score.interval.low}, {"high", score.interval.high}};
  json["patients"] = report.scored;
  return json;
}

// The network with everything, with each modality left out, and the baseline.
void score_methods(const PatientModel& model, const EncodedPatients& patients, const PatientSplit& split, const torch::Tensor& scored, PatientReport& report) {
  const auto names = model.inputs.modality_names();
  const auto scores_of = [&](const torch::Tensor& outcome) { return score_outcome(model.head, outcome, patients, scored); };
  const auto whole = answer_patients(*model.network.ptr(), patients, scored);
  report.methods.push_back({"network", scores_of(whole.outcome)});
  report.outcome = whole.outcome, report.gates = whole.gates, report.dice = whole.dice;
  for (size_t m = 0; names.size() > 1 && m < names.size(); ++m)
    report.methods.push_back({"network without " + names[m], scores_of(answer_patients(*model.network.ptr(), without_modality(patients, m), scored).outcome)});
  const auto baseline = fit_baseline(patients, model.network->config().categories, model.head, torch::cat({split.train, split.validation}), scored);
  if (baseline.outcome.defined()) report.methods.push_back({baseline.name, score_outcome(baseline.head, baseline.outcome, patients, scored), /*is_baseline=*/true});
}
}  // namespace

PatientTrainResult train_patients(const data::PatientTable& table, const PatientConfig& config, const PatientTrainOptions& options) {
  const io::Json resolved = io::to_json(config);
  train::require_new_or_same_run(options.run, resolved, options.resume);
  const auto split = split_patients(table, options.fold, config.validation_share, config.train.seed);
  std::vector<int64_t> learnt(split.train.data_ptr<int64_t>(), split.train.data_ptr<int64_t>() + split.train.numel());
  const auto measures = config.measures ? region_measures(table) : std::vector<std::vector<double>>();
  const auto inputs = PatientInputs::fit(table, learnt, config.image, config.network.text_tokens, measures, config.text_encoder);
  PatientConfig complete = config;
  inputs.describe(complete.network);
  complete.network.validate();
  const auto patients = encode(table, inputs, measures);

  train::RunFolder folder(options.run);
  folder.write_config(resolved);
  folder.write_manifest({config.train.seed, options.command, table.files(), {}});
  PatientTrainResult result;
  const auto fitted = fit_patients(patients, split, complete, folder, {options.resume, options.command});
  result.training = fitted.training;
  if (result.training.reason == train::StopReason::kInterrupted) return result;

  const PatientModel model{fitted.network, inputs, fitted.head};
  PatientReport report;
  report.table = &table, report.config = &complete, report.head = &model.head, report.run = options.run;
  report.modalities = inputs.modality_names();
  report.held_out = split.held_out.size(0) > 0;
  const auto scored = report.held_out ? split.held_out : split.validation;
  if (scored.size(0) > 0) {
    report.scored = scored.size(0), report.rows = scored;
    if (!model.head.is_class()) report.known = survival_of(patients, scored);
    score_methods(model, patients, split, scored, report);
    result.scores = report.methods.front().scores;
    write_predictions(options.run / "predictions.csv", table, scored, model, report.outcome, report.gates);
    folder.write_metrics(metrics_json(report));
  }
  model.save(options.run / "model", model_card(table, result, split.train.size(0)));
  result.model = options.run / "model", result.report = options.run / "report.html";
  write_patient_report(result.report, report);
  return result;
}

}  // namespace fovea::recipes
