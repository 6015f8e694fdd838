// Runs one layer that joins modalities on tensors from files, for parity with its formulas in torch.
//   fovea_fusion_probe CONFIG.json WEIGHTS.safetensors INPUT.safetensors OUTPUT.safetensors
// All is computed in f64, without dropout. CONFIG {"layer": name, ...its options}. INPUT: the layer's inputs by name and
// "upstream.NAME" for its outputs. OUTPUT: the outputs by name and "grad.NAME" = d sum(output * upstream) / d NAME for
// every parameter and every floating input.
#include <cstdio>
#include <functional>
#include <iostream>
#include <map>

#include "fovea/core/error.h"
#include "fovea/data/torch_tensor.h"
#include "fovea/io/json_file.h"
#include "fovea/nn/feature_tokens.h"
#include "fovea/nn/gated_cross_attention.h"
#include "fovea/nn/gated_fusion.h"
#include "fovea/nn/word_region_attention.h"
#include "fovea/ops/ensure_registered.h"

namespace {

using namespace fovea;
using Tensors = std::map<std::string, torch::Tensor>;

struct Layer {
  std::shared_ptr<torch::nn::Module> module;
  std::function<Tensors(Tensors&)> run;  // an input that is not given is an undefined tensor
};

Layer make_layer(const io::Json& config) {
  const std::string name = config.at("layer");
  if (name == "feature_tokens") {
    nn::FeatureTokens layer(
        nn::FeatureTokensOptions(config.at("numbers"), config.at("categories").get<std::vector<int64_t>>(), config.at("dim")));
    return {layer.ptr(), [layer](Tensors& in) mutable -> Tensors { return {{"tokens", layer(in["numbers"], in["codes"])}}; }};
  }
  if (name == "gated_fusion") {
    nn::GatedFusion layer(nn::GatedFusionOptions(config.at("image_dim"), config.at("text_dim"), config.at("dim"))
                              .gates(config.at("gates"))
                              .bias(config.at("bias")));
    return {layer.ptr(), [layer](Tensors& in) mutable -> Tensors {
              const nn::Fused fused = layer(in["v"], in["t"], in["has_image"], in["has_text"]);
              return {{"vector", fused.vector}, {"gate", fused.gate}};
            }};
  }
  if (name == "gated_cross_attention") {
    nn::GatedCrossAttention layer(nn::GatedCrossAttentionOptions(config.at("dim"), config.at("heads"))
                                      .media_dim(config.at("media_dim"))
                                      .hidden(config.at("hidden")));
    return {layer.ptr(), [layer](Tensors& in) mutable -> Tensors { return {{"out", layer(in["x"], in["media"], in["mask"])}}; }};
  }
  if (name == "word_regions") {
    nn::WordRegionOptions options;
    options.single_softmax = config.at("single_softmax");
    return {std::make_shared<torch::nn::Module>(), [options](Tensors& in) -> Tensors {
              const auto found = nn::word_regions(in["words"], in["word_mask"], in["regions"], in["region_mask"], options);
              return {{"scores", found.scores}, {"weights", found.weights}};
            }};
  }
  throw ArgumentError("fusion probe: no layer " + name);
}

void run(const char* config_path, const char* weights_path, const char* input_path, const char* output_path) {
  Layer layer = make_layer(io::read_json(config_path));
  layer.module->to(torch::kFloat64);
  {
    torch::NoGradGuard no_grad;
    const auto weights = io::read_safetensors(weights_path);
    for (auto& item : layer.module->named_parameters()) item.value().copy_(data::to_torch(weights.at(item.key())));
  }
  layer.module->eval();

  Tensors inputs;
  for (const auto& [name, data] : io::read_safetensors(input_path)) {
    inputs[name] = data::to_torch(data);
    if (inputs[name].is_floating_point()) inputs[name].requires_grad_();
  }
  const Tensors given = inputs;
  const Tensors outputs = layer.run(inputs);
  io::TensorMap result;
  torch::Tensor sum = torch::zeros({}, torch::kFloat64);
  for (const auto& [name, tensor] : outputs) {
    result[name] = data::from_torch(tensor);
    if (const auto upstream = given.find("upstream." + name); upstream != given.end())
      sum = sum + (tensor * upstream->second).sum();
  }
  sum.backward();
  const auto keep = [&](const std::string& name, const torch::Tensor& tensor) {
    if (tensor.grad().defined()) result["grad." + name] = data::from_torch(tensor.grad());
  };
  for (const auto& item : layer.module->named_parameters()) keep(item.key(), item.value());
  for (const auto& [name, tensor] : given)
    if (!name.starts_with("upstream.")) keep(name, tensor);
  io::write_safetensors(output_path, result);
}

}  // namespace

int main(int argc, char** argv) {
  fovea::ops::ensure_registered();
  if (argc != 5) {
    std::fprintf(stderr, "usage: fovea_fusion_probe CONFIG.json WEIGHTS.safetensors INPUT.safetensors OUTPUT.safetensors\n");
    return 2;
  }
  try {
    run(argv[1], argv[2], argv[3], argv[4]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
