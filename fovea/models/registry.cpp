#include "fovea/models/registry.h"

#include <functional>

#include "fovea/core/error.h"
#include "fovea/models/seeded_generator.h"

namespace fovea::models {
namespace {

struct Entry {
  std::string name;
  std::function<NetworkConfig()> config;
};

const std::vector<Entry>& entries() {
  static const std::vector<Entry> list = {
      {"swin_unetr", [] { return NetworkConfig(SwinUnetrConfig{}); }},
      {"swin_unetr_12", [] { return NetworkConfig(swin_unetr_12()); }},
      {"swin_unetr_24", [] { return NetworkConfig(swin_unetr_24()); }},
      {"swin_unetr_48", [] { return NetworkConfig(swin_unetr_48()); }},
      {"unetr", [] { return NetworkConfig(UnetrConfig{}); }},
      {"masked_autoencoder", [] { return NetworkConfig(MaskedAutoencoderConfig{}); }},
      {"masked_autoencoder_small", [] { return NetworkConfig(masked_autoencoder_small()); }},
      {"swin_unetr_v2_48", [] { return NetworkConfig(swin_unetr_v2_48()); }},
  };
  return list;
}

Network build(const SwinUnetrConfig& config) { return std::make_shared<SwinUnetrImpl>(config); }

Network build(const UnetrConfig& config) { return std::make_shared<UnetrImpl>(config); }

Network build(const MaskedAutoencoderConfig& config) { return std::make_shared<MaskedAutoencoderImpl>(config); }

std::string family(const SwinUnetrConfig&) { return "swin_unetr"; }
std::string family(const UnetrConfig&) { return "unetr"; }
std::string family(const MaskedAutoencoderConfig&) { return "masked_autoencoder"; }

}  // namespace

std::vector<std::string> names() {
  std::vector<std::string> list;
  for (const auto& entry : entries()) list.push_back(entry.name);
  return list;
}

NetworkConfig default_config(const std::string& name) {
  for (const auto& entry : entries()) {
    if (entry.name == name) return entry.config();
  }
  const auto nearest = nearest_name(name, names());
  std::string known;
  for (const auto& each : names()) known += (known.empty() ? "" : ", ") + each;
  throw ArgumentError("no network is called '" + name + "'" + (nearest.empty() ? "" : ", did you mean '" + nearest + "'?") + "; there are " + known);
}

std::string family_of(const NetworkConfig& config) {
  return std::visit([](const auto& c) { return family(c); }, config);
}

void set_channels(NetworkConfig& config, int64_t in_channels, int64_t out_channels) {
  std::visit(
      [&](auto& c) {
        c.in_channels = in_channels;
        c.out_channels = out_channels;
      },
      config);
}

void set_image_size(NetworkConfig& config, const std::vector<int64_t>& size) {
  std::visit(
      [&](auto& c) {
        if constexpr (requires { c.img_size; }) c.img_size = size;
      },
      config);
}

Network make_network(const NetworkConfig& config, uint64_t seed) {
  std::visit([](const auto& c) { c.validate(); }, config);
  const SeededGenerator seeded(seed);
  return std::visit([](const auto& c) { return build(c); }, config);
}

}  // namespace fovea::models
