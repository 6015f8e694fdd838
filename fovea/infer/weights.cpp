#include "fovea/infer/weights.h"

#include <array>
#include <map>
#include <sstream>

#include "fovea/core/error.h"
#include "fovea/data/torch_tensor.h"

namespace fovea::infer {
namespace {

bool take_prefix(std::string& name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return false;
  name.erase(0, prefix.size());
  return true;
}

void replace(std::string& name, std::string_view from, std::string_view to) {
  if (const auto at = name.find(from); at != std::string::npos) name.replace(at, from.size(), to);
}

std::string network_name(std::string name) {
  while (take_prefix(name, "module.") || take_prefix(name, "model.") || take_prefix(name, "network.")) {
  }
  if (take_prefix(name, "swin_vit.")) name.insert(0, "swinViT.");
  const bool encoder = name.starts_with("patch_embed.") ||
                       (name.starts_with("layers") && name.size() > 6 && name[6] >= '1' && name[6] <= '4' && (name.substr(7, 1) == "." || name.substr(7, 2) == "c."));
  if (encoder) name.insert(0, "swinViT.");
  replace(name, ".mlp.fc1.", ".mlp.linear1.");
  replace(name, ".mlp.fc2.", ".mlp.linear2.");
  return name;
}

bool is_unused_by_design(const std::string& name) { return name.find(".cross_attn.") != std::string::npos; }

std::map<std::string, torch::Tensor> places_of(const torch::nn::Module& network) {
  std::map<std::string, torch::Tensor> places;
  for (const auto& item : network.named_parameters()) places.emplace(item.key(), item.value());
  for (const auto& item : network.named_buffers()) places.emplace(item.key(), item.value());
  return places;
}

std::string shape_text(at::IntArrayRef shape) {
  std::ostringstream text;
  text << shape;
  return text.str();
}

// "3 missing: a, b, c" with at most three names.
std::string summary(const std::vector<std::string>& names, const std::string& what) {
  if (names.empty()) return "";
  std::string text = "; " + std::to_string(names.size()) + " " + what + ": " + names[0];
  for (size_t i = 1; i < names.size() && i < 3; ++i) text += ", " + names[i];
  return names.size() > 3 ? text + ", ..." : text;
}

}  // namespace

io::TensorMap with_network_names(io::TensorMap tensors, const std::string& where) {
  io::TensorMap renamed;
  while (!tensors.empty()) {
    auto node = tensors.extract(tensors.begin());
    const std::string original = node.key();
    node.key() = network_name(original);
    if (!renamed.insert(std::move(node)).inserted) throw ArgumentError(where + ": '" + original + "' and another tensor both mean '" + network_name(original) + "'");
  }
  return renamed;
}

WeightReport load_weights(torch::nn::Module& network, const io::TensorMap& tensors, const std::string& where, Coverage coverage) {
  const auto places = places_of(network);
  WeightReport report;
  std::vector<std::string> misfits;
  std::map<std::string, torch::Tensor> fitting;
  for (const auto& [file_name, data] : tensors) {
    const std::string name = places.contains(file_name) ? file_name : network_name(file_name);
    const auto place = places.find(name);
    if (place == places.end()) {
      if (!is_unused_by_design(name)) report.unexpected.push_back(file_name);
      continue;
    }
    const auto& target = place->second;
    if (at::IntArrayRef(data.shape) != target.sizes()) {
      if (coverage == Coverage::kAny) report.other_shape.push_back(name);
      else misfits.push_back(name + " is " + shape_text(data.shape) + ", expected " + shape_text(target.sizes()));
      continue;
    }
    const auto tensor = data::to_torch(data, where + ": " + file_name);
    if (target.is_floating_point() != tensor.is_floating_point()) {
      misfits.push_back(name + " is " + std::string(name_of(data.dtype)) + ", expected " + (target.is_floating_point() ? "floating point" : "integers"));
    } else if (!target.is_floating_point() && !tensor.to(target.scalar_type()).equal(target)) {
      misfits.push_back(name + " holds other values than this network computes for it");
    } else if (!fitting.emplace(name, tensor).second) {
      misfits.push_back(name + " is there twice, under different prefixes");
    }
  }
  for (const auto& [name, target] : places) {
    // What a network computes itself (integer buffers) may be left out.
    if (!fitting.contains(name) && target.is_floating_point()) report.missing.push_back(name);
  }
  report.loaded = fitting.size();

  const bool complete = coverage == Coverage::kWhole ? report.missing.empty() && report.unexpected.empty() : !fitting.empty();
  if (!complete || !misfits.empty()) {
    throw ArgumentError(where + ": the weights do not fit the network" + summary(misfits, "do not fit") + summary(report.missing, "missing") +
                        summary(report.unexpected, "unexpected") + "; check that the configuration is the one they were trained with");
  }
  torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : fitting) torch::Tensor(places.at(name)).copy_(tensor);
  return report;
}

io::TensorMap encoder_weights(io::TensorMap tensors) {
  if (!tensors.contains("mask_tokens")) return tensors;
  std::erase_if(tensors, [](const auto& item) { return item.first.starts_with("decoder_") || item.first == "mask_tokens"; });
  return tensors;
}

io::TensorMap network_weights(const torch::nn::Module& network) {
  io::TensorMap tensors;
  for (const auto& [name, tensor] : places_of(network)) tensors.emplace(name, data::from_torch(tensor));
  return tensors;
}

}  // namespace fovea::infer
