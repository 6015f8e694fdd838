#include "fovea/recipes/segment_config.h"

#include "fovea/core/error.h"
#include "fovea/infer/model_folder.h"
#include "fovea/infer/network_json.h"
#include "fovea/io/config.h"
#include "fovea/models/registry.h"
#include "fovea/ops/parallel.h"
#include "fovea/recipes/training_memory.h"

namespace fovea::recipes {

namespace {
// Keys of `top` replace those of `base`, object by object.
void merge(io::Json& base, const io::Json& top) {
  if (!base.is_object() || !top.is_object()) return void(base = top);
  for (const auto& [key, value] : top.items()) merge(base[key], value);
}

// Names the first key of `given` that a config does not have, or that should hold keys itself. Free JSON (an empty object
// in `known`) takes any key.
void refuse_unknown_keys(const io::Json& given, const io::Json& known, const std::string& where) {
  if (!known.is_object() || known.empty()) return;
  if (!given.is_object()) throw ArgumentError(where + ": expected an object with keys, found " + given.dump());
  std::vector<std::string> names;
  for (const auto& [key, value] : known.items()) names.push_back(key);
  for (const auto& [key, value] : given.items()) {
    if (!known.contains(key)) {
      const std::string near = nearest_name(key, names);
      throw ArgumentError(where + ": unknown key \"" + key + "\"" + (near.empty() ? "" : ", did you mean \"" + near + "\"?"));
    }
    refuse_unknown_keys(value, known[key], where + ": " + key);
  }
}

// The value that a field of the plan takes in the file or the overrides, if any.
template <class T>
std::optional<T> wished(const io::Json& file, const std::string& where, const char* key, const char* expected) {
  if (!file.contains("plan") || !file["plan"].contains(key)) return std::nullopt;
  try {
    return file["plan"][key].get<T>();
  } catch (const io::Json::exception&) {
    throw ArgumentError(where + ": plan." + key + ": expected " + expected + ", found " + file["plan"][key].dump());
  }
}
// The network and patch of a model folder become those of the plan, unless the file or the overrides name a network.
void begin_like(const std::filesystem::path& start, io::Json& given) {
  io::Json& plan = given["plan"];
  if (plan.contains("network") || plan.contains("network_config") || !std::filesystem::is_directory(start)) return;
  const auto model = infer::open_model(start);
  plan["network"] = model.network.at("network"), plan["network_config"] = model.network.at("config");
  if (!plan.contains("patch_size") && model.recipe.contains("plan")) plan["patch_size"] = model.recipe["plan"].at("patch_size");
}
}  // namespace

SegmentConfig resolve_segment_config(const data::Dataset& dataset, const std::filesystem::path& file, const std::vector<std::string>& overrides,
                                     int64_t max_ram_bytes, const std::filesystem::path& start) {
  const std::string where = file.empty() ? "config" : file.string();
  io::Json given = file.empty() ? io::Json::object() : io::read_json(file);
  if (!given.is_object()) throw ArgumentError(where + ": expected an object with keys, found " + given.dump());
  for (const std::string& assignment : overrides) io::apply_override(given, assignment);
  refuse_unknown_keys(given, io::to_json(SegmentConfig{}), where);  // before any scan is read
  if (!start.empty()) begin_like(start, given);
  const bool pretrains = given.contains("pretrain") && given["pretrain"].value("ratio", 0.0) > 0;

  data::PlanOptions options;
  options.max_ram_bytes = max_ram_bytes;
  options.parallel = ops::torch_parallel_for;
  options.network = wished<std::string>(given, where, "network", "a name").value_or(pretrains ? "masked_autoencoder_small" : "swin_unetr_12");
  options.spacing_mm = wished<std::array<double, 3>>(given, where, "spacing_mm", "three numbers");
  options.patch_size = wished<std::array<int64_t, 3>>(given, where, "patch_size", "three integers");
  options.batch_size = wished<int64_t>(given, where, "batch_size", "an integer");
  const auto of_training = [&](const char* key) { return given.contains("train") && given["train"].contains(key) ? given["train"][key] : io::Json(); };
  options.memory_bytes = training_memory_estimate(options.network, wished<io::Json>(given, where, "network_config", "an object").value_or(io::Json::object()),
                                                  {of_training("precision") == "bf16", of_training("average_decay") > 0.0});
  const data::Plan plan = data::make_plan(dataset, options);

  SegmentConfig defaults;
  defaults.plan = plan;
  defaults.predict = infer::nnunet_windows(plan.patch_size, {});
  if (pretrains) defaults.train.best_metric = "error", defaults.train.best_is = train::BestIs::kLowest, defaults.augment = data::augment_preset("none");
  io::Json resolved = io::to_json(defaults);
  merge(resolved, given);
  if (resolved["train"]["steps"] == 0 && resolved["train"]["max_time_s"] == 0.0) resolved["train"]["steps"] = 5000;
  resolved["train"]["batch_size"] = resolved["plan"]["batch_size"];
  auto config = io::from_json<SegmentConfig>(resolved, where);
  if (!given.contains("predict") || !given["predict"].contains("patch_size")) config.predict.patch_size = config.plan.patch_size;

  // The network's own config: preset, then the file's fields, then the dataset's channels and classes.
  auto network = infer::network_from_json({{"network", config.plan.network}, {"config", config.plan.network_config}}, where + ": plan");
  models::set_channels(network, config.plan.channels(), pretrains ? config.plan.channels() : config.plan.classes());
  if (!config.plan.network_config.contains("img_size")) models::set_image_size(network, {config.plan.patch_size.begin(), config.plan.patch_size.end()});
  const io::Json whole = infer::network_to_json(network);
  config.plan.network = whole["network"], config.plan.network_config = whole["config"];
  config.plan.validate();
  if (pretrains) {
    if (!(config.pretrain.ratio < 1)) throw ArgumentError(where + ": pretrain.ratio is " + std::to_string(config.pretrain.ratio) + ", expected 0 <= ratio < 1");
    if (!std::holds_alternative<models::MaskedAutoencoderConfig>(network))
      throw ArgumentError(where + ": network '" + config.plan.network + "' rebuilds no hidden patches, expected a masked_autoencoder; leave plan.network away");
  }
  return config;
}

}  // namespace fovea::recipes
