#include "fovea/nn/trace.h"

namespace fovea::nn {
namespace {
thread_local Trace* current = nullptr;
}

Trace::Trace(const torch::nn::Module& root) : outer_(current) {
  for (const auto& item : root.named_modules()) names_.emplace(item.value().get(), item.key());
  current = this;
}

Trace::~Trace() { current = outer_; }

bool tracing() { return current != nullptr; }

torch::Tensor traced(const torch::nn::Module* layer, torch::Tensor output) {
  if (current != nullptr) {
    const auto name = current->names_.find(layer);
    if (name != current->names_.end()) current->outputs_.emplace_back(name->second, output.detach());
  }
  return output;
}

}  // namespace fovea::nn
