#include "fovea/recipes/patient_config.h"

#include "fovea/core/error.h"
#include "fovea/io/config.h"
#include "fovea/recipes/patient_inputs.h"

namespace fovea::recipes {

train::TrainConfig PatientConfig::defaults() {
  train::TrainConfig c;
  c.steps = 600, c.steps_per_epoch = 20, c.batch_size = 64;
  c.optimizer.learning_rate = 1e-3, c.optimizer.weight_decay = 1e-2;
  c.clip_norm = 1, c.average_decay = 0.98;
  c.best_metric = "score", c.best_is = train::BestIs::kHighest;
  return c;
}

void PatientConfig::validate() const {
  const auto expect = [](bool holds, const std::string& what) {
    if (!holds) throw ArgumentError("patient: " + what);
  };
  image.validate();
  expect(intervals >= 2, "intervals is " + std::to_string(intervals) + ", expected 2 or more");
  expect(segmentation_weight >= 0, "segmentation_weight is negative");
  expect(modality_dropout >= 0 && modality_dropout < 1, "modality_dropout is outside [0, 1)");
  expect(validation_share >= 0 && validation_share < 0.9, "validation_share is outside [0, 0.9)");
  expect(outcome != PatientOutcome::kClass || columns.has_label(), "outcome is class, but patients.json names no \"label\"");
  expect(columns.has_label() || columns.has_survival(), "nothing to predict: patients.json names neither \"label\" nor \"time\" and \"event\"");
  expect(outcome == PatientOutcome::kAuto || outcome == PatientOutcome::kClass || columns.has_survival(), "the outcome is a time, but patients.json names no \"time\" and \"event\"");
  expect(!segments() || (!columns.mask.empty() && !columns.images.empty()), "segmentation_weight is above 0, but patients.json names no \"mask\" or no image");
  expect(!measures || (!columns.mask.empty() && !columns.images.empty()), "measures is true, but patients.json names no \"mask\" or no image");
  expect(text_encoder == PatientText::kOwn || !columns.texts.empty(), "text_encoder is minilm, but patients.json names no \"texts\"");
  train.validate();
}

PatientConfig resolve_patient_config(const data::PatientTable& table, const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  io::Json json = file.empty() ? io::Json::object() : io::read_json(file);
  for (const std::string& assignment : overrides) io::apply_override(json, assignment);
  const std::string where = file.empty() ? "--set" : file.string();
  PatientConfig defaults;
  defaults.columns = table.columns;
  // What the table says of the network must stand before the rest of it is checked; vocabulary and measures are counted later.
  PatientInputs known;
  known.columns = table.columns;
  if (json.contains("image")) known.image = io::from_json<data::FixedGridConfig>(json["image"], where + ": image");
  known.describe(defaults.network);
  if (!table.columns.texts.empty()) defaults.network.vocabulary = 1;
  auto config = io::from_json<PatientConfig>(json, where, defaults);
  if (config.outcome == PatientOutcome::kAuto) config.outcome = config.columns.has_label() ? PatientOutcome::kClass : PatientOutcome::kCox;
  config.validate();
  return config;
}

}  // namespace fovea::recipes
