#pragma once
#include <string>
#include <variant>
#include <vector>

#include "fovea/models/masked_autoencoder.h"
#include "fovea/models/network.h"
#include "fovea/models/swin_unetr.h"
#include "fovea/models/unetr.h"

namespace fovea::models {

/// The configuration of any network we have. visit(f) of a configuration: std::visit([](auto& c) { c.visit(v); }, config).
using NetworkConfig = std::variant<SwinUnetrConfig, UnetrConfig, MaskedAutoencoderConfig>;

/// Every name that default_config() takes: a family ("swin_unetr") or a preset of it ("swin_unetr_48").
std::vector<std::string> names();

/// Errors   ArgumentError naming the nearest known name
NetworkConfig default_config(const std::string& name);

/// The family of a configuration, as written to a model folder: "swin_unetr".
std::string family_of(const NetworkConfig& config);

/// Sets the channels of the image and the number of classes in any family.
void set_channels(NetworkConfig& config, int64_t in_channels, int64_t out_channels);

/// Sets the size of the image in families that have one (Z, Y, X); the others take any.
void set_image_size(NetworkConfig& config, const std::vector<int64_t>& size);

/// Builds the network with weights drawn from `seed` alone: same bits on any machine and thread count, and torch's default
/// generator is left as it was.
/// Errors   ArgumentError if the configuration does not validate
Network make_network(const NetworkConfig& config, uint64_t seed = 0);

}  // namespace fovea::models
