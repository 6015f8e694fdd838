// Runs one network on tensors from files, for parity tests against other frameworks.
//   fovea_models_probe CONFIG.json WEIGHTS.safetensors INPUT.safetensors OUTPUT.safetensors
// All is computed in the dtype of x (f32 or f64).
// CONFIG {"network": family, "config": {...}}; {"vit": {...}}, whose parameters keep their own values where the weights
// have none; {"masked_autoencoder": {...}} with "kept" int64 [B,K] in INPUT; or {"swin_v2_attention": {"dim", "heads", "window", "shift", "trained_window"}} on x [B,Z,Y,X,E]. INPUT: "x", optional "probe" like the logits. OUTPUT: "output", with a probe
// "grad.NAME" = d sum(output * probe) / d NAME for every parameter and "grad.x", and "trace.NAME" of every layer
// ("trace.NAME#2" for its second call).
#include <cstdio>
#include <functional>
#include <iostream>

#include "fovea/data/torch_tensor.h"
#include "fovea/infer/network_json.h"
#include "fovea/infer/weights.h"
#include "fovea/io/config.h"
#include "fovea/io/json_file.h"
#include "fovea/models/masked_autoencoder.h"
#include "fovea/models/vit.h"
#include "fovea/nn/trace.h"
#include "fovea/nn/window_attention.h"
#include "fovea/ops/ensure_registered.h"

namespace {

using namespace fovea;

// The windows of Swin-v2, strangers of a shift at -100 as there.
nn::WindowAttention swin_v2_attention(const io::Json& config) {
  const auto triple = [&](const char* key) { return config.at(key).get<nn::Triple>(); };
  return nn::WindowAttention(nn::WindowAttentionOptions(config.at("dim"), config.at("heads"))
                                 .window(triple("window"))
                                 .shift(triple("shift"))
                                 .trained_window(triple("trained_window"))
                                 .region_mask(nn::RegionMask::kAdditive)
                                 .scores(nn::WindowScores::kCosine)
                                 .bias(nn::WindowBias::kContinuous));
}

void run(const char* config_path, const char* weights_path, const char* input_path, const char* output_path) {
  const io::Json config = io::read_json(config_path);
  const auto input = io::read_safetensors(input_path), weights = io::read_safetensors(weights_path);
  auto x = data::to_torch(input.at("x")).requires_grad_();
  std::shared_ptr<torch::nn::Module> network;
  std::function<torch::Tensor(const torch::Tensor&)> forward;
  const auto fill = [&] {
    torch::NoGradGuard no_grad;
    network->to(x.scalar_type());
    for (const auto& item : network->named_parameters())
      if (weights.contains(item.key())) item.value().copy_(data::to_torch(weights.at(item.key())));
  };
  if (config.contains("swin_v2_attention")) {
    auto layer = swin_v2_attention(config["swin_v2_attention"]);
    network = layer.ptr();
    fill();
    forward = [layer](const torch::Tensor& x) mutable { return layer(x); };
  } else if (config.contains("vit")) {
    models::Vit vit(io::from_json(config["vit"], config_path, models::VitConfig{}));
    network = vit.ptr();
    fill();
    forward = [vit](const torch::Tensor& x) mutable { return vit->forward(x).first; };
  } else if (config.contains("masked_autoencoder")) {
    models::MaskedAutoencoder mae(io::from_json(config["masked_autoencoder"], config_path, models::MaskedAutoencoderConfig{}));
    network = mae.ptr();
    fill();
    forward = [mae, kept = data::to_torch(input.at("kept"))](const torch::Tensor& x) mutable { return mae->rows(x, kept); };
  } else {
    const auto whole = models::make_network(infer::network_from_json(config, config_path));
    network = whole;
    whole->to(x.scalar_type());
    infer::load_weights(*whole, weights, weights_path);
    forward = [whole](const torch::Tensor& x) { return whole->forward(x); };
  }
  network->eval();

  io::TensorMap result;
  torch::Tensor output;
  {
    const nn::Trace trace(*network);
    output = forward(x);
    for (const auto& [name, tensor] : trace.outputs()) {
      const std::string key = "trace." + name;
      result[result.contains(key) ? key + "#2" : key] = data::from_torch(tensor);
    }
  }
  result["output"] = data::from_torch(output);
  if (const auto probe = input.find("probe"); probe != input.end()) {
    (output * data::to_torch(probe->second)).sum().backward();
    result["grad.x"] = data::from_torch(x.grad());
    for (const auto& item : network->named_parameters()) {
      if (item.value().grad().defined()) result["grad." + item.key()] = data::from_torch(item.value().grad());
    }
  }
  io::write_safetensors(output_path, result);
}

}  // namespace

int main(int argc, char** argv) {
  fovea::ops::ensure_registered();
  if (argc != 5) {
    std::fprintf(stderr, "usage: fovea_models_probe CONFIG.json WEIGHTS.safetensors INPUT.safetensors OUTPUT.safetensors\n");
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
