#include "fovea/recipes/station_config.h"

#include "fovea/core/error.h"
#include "fovea/io/config.h"

namespace fovea::recipes {

train::TrainConfig StationConfig::defaults() {
  train::TrainConfig c;
  c.steps = 1200, c.steps_per_epoch = 200, c.batch_size = 32;
  c.optimizer.learning_rate = 1e-2, c.optimizer.weight_decay = 0, c.schedule.warmup = 0.04, c.clip_norm = 1;
  c.best_metric = "nll", c.best_is = train::BestIs::kLowest;
  return c;
}

void StationConfig::validate() const {
  const auto expect = [](bool holds, const std::string& what) {
    if (!holds) throw ArgumentError("station: " + what);
  };
  expect(columns.x_km.empty() == columns.y_km.empty(), "columns.x_km and columns.y_km belong together");
  expect(nearest >= 2, "nearest is " + std::to_string(nearest) + ", expected 2 or more");
  expect(layers >= 1 && channels >= 1 && heads >= 1, "layers, channels and heads are at least 1");
  expect(simulated_steps >= 0, "simulated_steps is negative");
  expect(validation_share >= 0 && validation_share < 0.9, "validation_share is outside [0, 0.9)");
  expect(kernel_km > 0, "kernel_km is not positive");
  expect(train.precision == train::Precision::kF32,
         "train.precision is bf16; these networks of a few thousand numbers run in f32");
  train.validate();
}

StationConfig resolve_station_config(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  io::Json json = file.empty() ? io::Json::object() : io::read_json(file);
  for (const std::string& assignment : overrides) io::apply_override(json, assignment);
  if (json.contains("test_from") && json["test_from"].is_number_integer())
    json["test_from"] = json["test_from"].dump();  // a year
  StationConfig defaults;
  if (json.contains("train") && json["train"].is_object() && json["train"].contains("max_time_s") &&
      !json["train"].contains("steps"))
    defaults.train.steps = 0;
  auto config = io::from_json<StationConfig>(json, file.empty() ? "--set" : file.string(), defaults);
  config.validate();
  return config;
}

}  // namespace fovea::recipes
