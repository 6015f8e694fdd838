#include "fovea/infer/network_json.h"

#include "fovea/core/error.h"
#include "fovea/io/config.h"

namespace fovea::infer {

io::Json network_to_json(const models::NetworkConfig& config) {
  io::Json json = io::Json::object();
  json["network"] = models::family_of(config);
  json["config"] = std::visit([](const auto& c) { return io::to_json(c); }, config);
  return json;
}

models::NetworkConfig network_from_json(const io::Json& json, const std::string& where) {
  if (!json.is_object() || !json.contains("network") || !json["network"].is_string()) {
    throw ArgumentError(where + ": expected an object with \"network\": the name of a network, e.g. \"swin_unetr\"");
  }
  auto config = models::default_config(json["network"].get<std::string>());
  if (json.contains("config")) {
    std::visit([&](auto& c) { c = io::from_json(json["config"], where + ": config", c); }, config);
  }
  return config;
}

}  // namespace fovea::infer
