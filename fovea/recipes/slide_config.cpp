#include "fovea/recipes/slide_config.h"

#include <algorithm>

#include "fovea/core/error.h"
#include "fovea/io/config.h"

namespace fovea::recipes {

std::string name_of(SlideNetwork network) {
  for (const auto& [value, name] : config_names(SlideNetwork{}))
    if (value == network) return name;
  return "?";
}

train::TrainConfig SlideConfig::defaults() {
  train::TrainConfig c;
  c.batch_size = 1, c.optimizer.learning_rate = 3e-4, c.optimizer.weight_decay = 1e-2;
  c.clip_norm = 1, c.average_decay = 0.98;
  c.best_metric = "loss", c.best_is = train::BestIs::kLowest;
  return c;
}

void SlideConfig::validate() const {
  const auto expect = [](bool holds, const std::string& what) {
    if (!holds) throw ArgumentError("slide: " + what);
  };
  expect(width >= 1 && hidden >= 1, "width and hidden are at least 1");
  expect(network != SlideNetwork::kTransmil || (heads >= 1 && width % heads == 0 && landmarks >= 1), "heads divides width, landmarks is at least 1");
  expect(dropout >= 0 && dropout < 1, "dropout is outside [0, 1)");
  expect(instance_weight >= 0 && instance_weight < 1, "instance_weight is outside [0, 1)");
  expect(instances >= 1, "instances is " + std::to_string(instances) + ", expected 1 or more");
  expect(validation_share >= 0 && validation_share < 0.9, "validation_share is outside [0, 0.9)");
  expect(max_tiles >= 0, "max_tiles is negative");
  expect(train.batch_size == 1, "train.batch_size is " + std::to_string(train.batch_size) + ", expected 1: slides differ in length; use train.accumulate");
  train.validate();
}

models::BagConfig SlideConfig::bag_config(int64_t features, int64_t classes) const {
  models::BagConfig config;
  switch (network) {
    case SlideNetwork::kClamSb:
    case SlideNetwork::kClamMb:
      config = models::ClamConfig{.width = width, .hidden = hidden, .multi_branch = network == SlideNetwork::kClamMb, .dropout = dropout};
      break;
    case SlideNetwork::kTransmil:
      config = models::TransmilConfig{.width = width, .heads = heads, .landmarks = landmarks, .dropout = dropout};
      break;
    default:
      config = models::AbmilConfig{.embed = {width}, .hidden = hidden,
                                   .pooling = network == SlideNetwork::kMean ? models::BagPooling::kMean : network == SlideNetwork::kMax ? models::BagPooling::kMax : models::BagPooling::kGated,
                                   .dropout = dropout};
  }
  models::set_bag_sizes(config, features, classes);
  return config;
}

SlideConfig resolve_slide_config(const data::SlideTable& table, const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  io::Json json = file.empty() ? io::Json::object() : io::read_json(file);
  for (const std::string& assignment : overrides) io::apply_override(json, assignment);
  SlideConfig defaults;
  const auto slides = int64_t(table.slides.size());
  defaults.train.steps_per_epoch = std::clamp<int64_t>(slides, 10, 1000);
  const bool timed = json.contains("train") && json["train"].is_object() && json["train"].contains("max_time_s");
  if (!timed) defaults.train.steps = std::max<int64_t>(300, 30 * slides);
  auto config = io::from_json<SlideConfig>(json, file.empty() ? "--set" : file.string(), defaults);
  if (config.features.empty()) config.features = table.file.parent_path().string();
  config.validate();
  return config;
}

}  // namespace fovea::recipes
