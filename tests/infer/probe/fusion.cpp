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
#include "fovea/models/mcat.h"
#include "fovea/nn/co_attention.h"
#include "fovea/nn/feature_tokens.h"
#include "fovea/nn/field_attention.h"
#include "fovea/nn/gated_cross_attention.h"
#include "fovea/nn/gated_fusion.h"
#include "fovea/nn/msa_attention.h"
#include "fovea/nn/window_attention.h"
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
  if (name == "parallel_co_attention") {
    nn::ParallelCoAttention layer(config.at("dim"), config.at("hidden"));
    return {layer.ptr(), [layer](Tensors& in) mutable -> Tensors {
              const auto read = layer(in["image"], in["table"], in["image_mask"], in["table_mask"]);
              return {{"image_vector", read.image}, {"table_vector", read.table},
                      {"image_weights", read.image_weights}, {"table_weights", read.table_weights}};
            }};
  }
  if (name == "co_attention") {
    nn::CoAttention layer(nn::CoAttentionOptions(config.at("dim"), config.at("heads"))
                              .other_dim(config.at("other_dim"))
                              .hidden(config.at("hidden")));
    return {layer.ptr(), [layer](Tensors& in) mutable -> Tensors {
              const auto [a, b] = layer(in["a"], in["b"], in["a_mask"], in["b_mask"]);
              return {{"first", a}, {"second", b}};
            }};
  }
  if (name == "window_cross_attention") {
    nn::WindowAttention layer(nn::WindowAttentionOptions(config.at("dim"), config.at("heads"))
                                  .window(config.at("window").get<nn::Triple>())
                                  .shift(config.at("shift").get<nn::Triple>())
                                  .padded_tokens(nn::PaddedTokens::kAttend)
                                  .region_mask(nn::RegionMask::kAdditive)
                                  .clipped_bias(nn::ClippedBias::kCornerOfIndex));
    return {layer.ptr(), [layer](Tensors& in) mutable -> Tensors { return {{"out", layer(in["x"], in["source"])}}; }};
  }
  if (name == "msa_attention") {
    nn::MsaAttention layer(nn::MsaAttentionOptions(config.at("dim"), config.at("heads"), config.at("over") == "residues" ? nn::Over::kResidues : nn::Over::kSequences)
                               .head_dim(config.at("head_dim"))
                               .tied(config.at("tied"))
                               .bias(config.at("bias"))
                               .gated(config.at("gated"))
                               .pair_dim(config.at("pair_dim")));
    return {layer.ptr(), [layer](Tensors& in) mutable -> Tensors { return {{"out", layer(in["x"], in["pair"], in["mask"])}}; }};
  }
  if (name == "global_column_attention") {
    nn::GlobalColumnAttention layer(config.at("dim"), config.at("heads"), config.at("head_dim"));
    return {layer.ptr(), [layer](Tensors& in) mutable -> Tensors { return {{"out", layer(in["x"], in["mask"])}}; }};
  }
  if (name == "msa_block") {
    nn::MsaBlock layer(nn::MsaBlockOptions(config.at("dim"), config.at("heads")).hidden(config.at("hidden")));
    return {layer.ptr(), [layer](Tensors& in) mutable -> Tensors { return {{"out", layer(in["x"], in["mask"])}}; }};
  }
  if (name == "field_attention") {
    const std::map<std::string, nn::FieldAttentionKind> kinds = {{"softmax", nn::FieldAttentionKind::kSoftmax},
                                                                 {"fourier", nn::FieldAttentionKind::kFourier},
                                                                 {"galerkin", nn::FieldAttentionKind::kGalerkin}};
    nn::FieldAttention layer(nn::FieldAttentionOptions(config.at("dim"), config.at("heads"))
                                 .axes(config.at("axes"))
                                 .kind(kinds.at(config.at("kind"))));
    return {layer.ptr(), [layer](Tensors& in) mutable -> Tensors {
              return {{"out", layer(in["x"], in["coordinates"])}};
            }};
  }
  if (name == "mcat") {
    models::Mcat model(models::McatConfig{.omic_sizes = config.at("omic_sizes").get<std::vector<int64_t>>(),
                                          .patch_features = config.at("patch_features")});
    const size_t groups = config.at("omic_sizes").size();
    return {model.ptr(), [model, groups](Tensors& in) mutable -> Tensors {
              std::vector<torch::Tensor> omics;
              for (size_t i = 0; i < groups; ++i) omics.push_back(in["omic" + std::to_string(i)]);
              const auto out = model(in["patches"], omics, in["mask"]);
              return {{"logits", out.logits}, {"survival", out.survival}, {"risk", out.risk},
                      {"co_attention", out.co_attention}, {"co_attention_scores", out.co_attention_scores},
                      {"path_weights", out.path_weights}, {"omic_weights", out.omic_weights}};
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
    if (name.ends_with("mask")) inputs[name] = inputs[name].to(torch::kBool);
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
