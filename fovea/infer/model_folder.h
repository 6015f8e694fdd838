#pragma once
#include <filesystem>
#include <string>

#include "fovea/infer/network_json.h"
#include "fovea/io/safetensors.h"

namespace fovea::infer {

/// What a model folder says of its model.
struct ModelDescription {
  io::Json network = io::Json::object();  ///< {"network": family, "config": {every field}}
  io::Json recipe = io::Json::object();   ///< {"recipe": name, ...}: whatever the recipe needs to predict; opaque here
};

/// A model folder whose weights are read and checked, but in no network yet.
struct OpenedModel : ModelDescription {
  io::TensorMap weights;
  std::filesystem::path weights_path;  ///< for messages
  std::string sha256;                  ///< of weights.safetensors
};

/// A network that labels every voxel, as a recipe left it.
struct LoadedModel {
  models::NetworkConfig config;
  io::Json recipe;
  models::Network network;  ///< in evaluation mode
  std::string sha256;
};

/// Writes the folder `path`: config.json (format, network, configuration, recipe, digest of the weights), weights.safetensors
/// (parameters and buffers under their public names) and model_card.md. It appears whole or not at all; a model folder that
/// is already there is replaced.
/// Errors   ArgumentError if `path` exists and is no model folder; IoError, ResourceError from the disk
void save_model(const std::filesystem::path& path, const torch::nn::Module& network, const ModelDescription& model, const std::string& model_card);

/// Reads a model folder of any recipe. Nothing is used before format and digest are checked.
/// Errors   IoError for a missing, newer or damaged folder
OpenedModel open_model(const std::filesystem::path& path);

/// The recipe that made a model folder: "segment" where it says nothing. Reads config.json alone. Errors: IoError.
std::string recipe_of(const std::filesystem::path& path);

/// Reads a model folder with a network that labels voxels; names, shapes and dtypes of the weights are checked too.
/// Errors   as open_model(); ArgumentError for a configuration or weights that do not fit, or a model of another kind
LoadedModel load_model(const std::filesystem::path& path);

}  // namespace fovea::infer
