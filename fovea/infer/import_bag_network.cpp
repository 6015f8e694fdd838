#include "fovea/infer/import_bag_network.h"

#include "fovea/core/error.h"
#include "fovea/infer/weights.h"
#include "fovea/io/config.h"

namespace fovea::infer {

namespace {
void move_prefix(io::TensorMap& tensors, const std::string& from, const std::string& to) {
  io::TensorMap moved;
  while (!tensors.empty()) {
    auto node = tensors.extract(tensors.begin());
    if (node.key().starts_with(from)) node.key() = to + node.key().substr(from.size());
    moved.insert(std::move(node));
  }
  tensors = std::move(moved);
}

class Shapes {
 public:
  Shapes(const io::TensorMap& tensors, const std::string& where) : tensors_(tensors), where_(where) {}
  bool has(const std::string& name) const { return tensors_.contains(name); }
  int64_t size(const std::string& name, size_t rank, size_t axis) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) throw ArgumentError(where_ + ": tensor '" + name + "' is missing, so the network cannot be told from the weights");
    if (found->second.shape.size() != rank)
      throw ArgumentError(where_ + ": '" + name + "' has " + std::to_string(found->second.shape.size()) + " axes, expected " + std::to_string(rank));
    return found->second.shape[axis];
  }

 private:
  const io::TensorMap& tensors_;
  const std::string& where_;
};

models::AbmilConfig abmil_config(const Shapes& s) {
  models::AbmilConfig config;
  const bool digits = s.has("feature_extractor_part1.0.weight");
  config.embed.clear();
  for (int64_t i = 0; i < 64; ++i) {  // every second or third place is a layer
    const std::string name = "feature_extractor_part2." + std::to_string(i) + ".weight";
    if (s.has(name)) config.embed.push_back(s.size(name, 2, 0));
  }
  const bool gated = s.has("attention_V.0.weight");
  const std::string first = gated ? "attention_V.0.weight" : "attention.0.weight";
  config.pooling = gated ? models::BagPooling::kGated : models::BagPooling::kAttention;
  config.hidden = s.size(first, 2, 0);
  config.features = digits ? 0 : s.size(config.embed.empty() ? first : "feature_extractor_part2.0.weight", 2, 1);
  config.outputs = s.size("classifier.0.weight", 2, 0);
  config.dropout = config.embed.size() > 1 && s.has("feature_extractor_part2.3.weight") ? 0.5 : 0;
  return config;
}

models::ClamConfig clam_config(const Shapes& s) {
  models::ClamConfig config;
  config.width = s.size("attention_net.0.weight", 2, 0), config.features = s.size("attention_net.0.weight", 2, 1);
  config.gated = s.has("attention_net.3.attention_c.weight");
  config.multi_branch = s.has("classifiers.0.weight");
  if (!config.gated && s.has("attention_net.3.module.2.weight")) config.dropout = 0;
  config.hidden = s.size(config.gated ? "attention_net.3.attention_a.0.weight" : "attention_net.3.module.0.weight", 2, 0);
  config.classes = 0;
  while (s.has("instance_classifiers." + std::to_string(config.classes) + ".weight")) ++config.classes;
  return config;
}

models::TransmilConfig transmil_config(const Shapes& s) {
  models::TransmilConfig config;
  config.width = s.size("_fc1.0.weight", 2, 0), config.features = s.size("_fc1.0.weight", 2, 1);
  config.heads = s.size("layer1.attn.res_conv.weight", 4, 0);
  config.classes = s.size("_fc2.weight", 2, 0);
  config.landmarks = config.width / 2;
  return config;
}
}  // namespace

ImportedBagNetwork import_bag_network(const io::TensorMap& tensors, const std::string& where) {
  ImportedBagNetwork found{{}, with_network_names(tensors, where)};
  std::erase_if(found.tensors, [](const auto& item) { return item.first.starts_with("instance_loss_fn."); });
  move_prefix(found.tensors, "attention_net.module.", "attention_net.");  // from several GPUs
  for (const char* form : {"attention_a", "attention_b", "attention_c", "module"})  // no dropout: one place earlier
    move_prefix(found.tensors, std::string("attention_net.2.") + form, std::string("attention_net.3.") + form);
  const Shapes shapes(found.tensors, where);
  if (shapes.has("_fc1.0.weight"))
    found.config = transmil_config(shapes);
  else if (shapes.has("attention_net.0.weight"))
    found.config = clam_config(shapes);
  else if (shapes.has("attention.0.weight") || shapes.has("attention_V.0.weight"))
    found.config = abmil_config(shapes);
  else
    throw ArgumentError(where + ": no network for bags has these names; known are AttentionDeepMIL, CLAM and TransMIL");
  return found;
}

io::Json bag_network_to_json(const models::BagConfig& config) {
  io::Json json = io::Json::object();
  json["network"] = models::family_of(config);
  json["config"] = std::visit([](const auto& c) { return io::to_json(c); }, config);
  return json;
}

models::BagConfig bag_network_from_json(const io::Json& json, const std::string& where) {
  if (!json.is_object() || !json.contains("network") || !json["network"].is_string())
    throw ArgumentError(where + ": expected an object with \"network\": abmil, clam or transmil");
  auto config = models::default_bag_config(json["network"].get<std::string>());
  if (json.contains("config")) std::visit([&](auto& c) { c = io::from_json(json["config"], where + ": config", c); }, config);
  return config;
}

}  // namespace fovea::infer
