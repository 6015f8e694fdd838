#pragma once
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <torch/torch.h>

namespace fovea::nn {

/// While it lives, keeps what the layers of one network return on this thread, by module name
/// ("swinViT.layers1.0.blocks.0"): what a forward hook on every module would see in Python.
/// Cost     the memory of all activations; nothing when no Trace lives.
class Trace {
 public:
  explicit Trace(const torch::nn::Module& root);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  /// (name, output) in the order of the calls; a layer called twice appears twice.
  const std::vector<std::pair<std::string, torch::Tensor>>& outputs() const { return outputs_; }

 private:
  friend torch::Tensor traced(const torch::nn::Module* layer, torch::Tensor output);
  std::unordered_map<const torch::nn::Module*, std::string> names_;
  std::vector<std::pair<std::string, torch::Tensor>> outputs_;
  Trace* outer_;
};

/// A Trace lives on this thread: layers compute each output on its own, fused with nothing.
bool tracing();

/// Returns `output`, after handing it to the Trace of this thread, if there is one: the last line of a layer's forward.
torch::Tensor traced(const torch::nn::Module* layer, torch::Tensor output);

}  // namespace fovea::nn
