// Runs one network on tensors from files, for parity tests against other frameworks.
//   fovea_models_probe CONFIG.json WEIGHTS.safetensors INPUT.safetensors OUTPUT.safetensors
// All is computed in the dtype of x (f32 or f64).
// CONFIG {"network": family, "config": {...}}; INPUT: "x", optional "probe" like the logits. OUTPUT: "output", with a probe
// "grad.NAME" = d sum(output * probe) / d NAME for every parameter and "grad.x", and "trace.NAME" of every layer
// ("trace.NAME#2" for its second call).
#include <cstdio>
#include <iostream>

#include "fovea/data/torch_tensor.h"
#include "fovea/infer/network_json.h"
#include "fovea/infer/weights.h"
#include "fovea/io/json_file.h"
#include "fovea/nn/trace.h"
#include "fovea/ops/ensure_registered.h"

namespace {

void run(const char* config_path, const char* weights_path, const char* input_path, const char* output_path) {
  using namespace fovea;
  const auto network = models::make_network(infer::network_from_json(io::read_json(config_path), config_path));
  const auto input = io::read_safetensors(input_path);
  auto x = data::to_torch(input.at("x")).requires_grad_();
  network->to(x.scalar_type());
  infer::load_weights(*network, io::read_safetensors(weights_path), weights_path);
  network->eval();

  io::TensorMap result;
  torch::Tensor output;
  {
    const nn::Trace trace(*network);
    output = network->forward(x);
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
