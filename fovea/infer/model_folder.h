#pragma once
#include <filesystem>
#include <string>

#include "fovea/infer/network_json.h"

namespace fovea::infer {

/// What a trained model is, beside its weights.
struct ModelFolder {
  models::NetworkConfig config;
  io::Json recipe = io::Json::object();  ///< plan, labels, normalisation ...: whatever the recipe needs to predict; opaque here
};

struct LoadedModel : ModelFolder {
  models::Network network;  ///< in evaluation mode
  std::string sha256;       ///< of weights.safetensors
};

/// Writes the folder `path`: config.json (format, network, configuration, recipe, digest of the weights), weights.safetensors
/// (parameters and buffers under their public names) and model_card.md. It appears whole or not at all; a model folder that
/// is already there is replaced.
/// Errors   ArgumentError if `path` exists and is no model folder; IoError, ResourceError from the disk
void save_model(const std::filesystem::path& path, const models::NetworkImpl& network, const ModelFolder& model, const std::string& model_card);

/// Reads a model folder. Nothing is used before format, digest, names, shapes and dtypes are checked.
/// Errors   IoError for a missing, newer or damaged folder; ArgumentError for a configuration or weights that do not fit
LoadedModel load_model(const std::filesystem::path& path);

}  // namespace fovea::infer
