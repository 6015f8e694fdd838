#pragma once
#include <string>

#include "fovea/io/json_file.h"
#include "fovea/io/safetensors.h"
#include "fovea/models/bag_network.h"

namespace fovea::infer {

struct ImportedBagNetwork {
  models::BagConfig config;
  io::TensorMap tensors;  ///< under the names of models::make_bag_network(config)
};

/// The network that tensors of a public checkpoint belong to, told from names and shapes: AttentionDeepMIL, CLAM (SB, MB;
/// also as saved before dropout had a place of its own, or from several GPUs), TransMIL (also as Lightning saves it).
/// Shapes do not tell: dropout (the authors' is assumed), and TransMIL's landmarks (half its width, as there).
/// Errors   ArgumentError beginning with `where`: none of these
ImportedBagNetwork import_bag_network(const io::TensorMap& tensors, const std::string& where);

/// {"network": "clam", "config": {every field}}, and back; see network_json.h.
io::Json bag_network_to_json(const models::BagConfig& config);
models::BagConfig bag_network_from_json(const io::Json& json, const std::string& where);

}  // namespace fovea::infer
