#pragma once
#include <string>

#include "fovea/io/json_file.h"
#include "fovea/models/registry.h"

namespace fovea::infer {

/// {"network": "swin_unetr", "config": {every field}}
io::Json network_to_json(const models::NetworkConfig& config);

/// The same back. "network" may also be a preset ("swin_unetr_48"); fields left out keep its values; other keys are ignored.
/// Errors   ArgumentError beginning with `where`: unknown network or field (with the nearest name), wrong type, invalid value
models::NetworkConfig network_from_json(const io::Json& json, const std::string& where);

}  // namespace fovea::infer
