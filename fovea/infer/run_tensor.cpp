#include "fovea/infer/run_tensor.h"

#include <optional>

#include "fovea/core/error.h"
#include "fovea/data/torch_tensor.h"
#include "fovea/nn/trace.h"

namespace fovea::infer {

io::TensorMap run_tensor(models::NetworkImpl& network, const io::TensorMap& input, const std::string& where, Activations activations) {
  const auto named = input.find("x");
  if (named == input.end() && input.size() != 1) {
    throw ArgumentError(where + ": has " + std::to_string(input.size()) + " tensors and none is called 'x', expected one input tensor");
  }
  const auto& [name, data] = named == input.end() ? *input.begin() : *named;
  if (!is_floating(data.dtype)) throw ArgumentError(where + ": '" + name + "' is " + std::string(name_of(data.dtype)) + ", expected floating point");

  torch::InferenceMode no_grad;
  network.eval();
  const auto x = data::to_torch(data, where + ": " + name).to(torch::kFloat);
  std::optional<nn::Trace> trace;
  if (activations == Activations::kAll) trace.emplace(network);
  io::TensorMap result;
  result["output"] = data::from_torch(network.forward(x));
  if (trace) {
    for (const auto& [layer, output] : trace->outputs()) {
      if (layer.empty()) continue;  // the network itself: "output"
      std::string key = layer;
      for (int repeat = 2; result.contains(key); ++repeat) key = layer + "#" + std::to_string(repeat);
      result[key] = data::from_torch(output);
    }
  }
  return result;
}

}  // namespace fovea::infer
