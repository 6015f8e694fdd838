#include "fovea/recipes/flop_counter.h"

#include <ATen/core/Tensor.h>

#include <atomic>
#include <string_view>

namespace fovea::recipes {

namespace {
std::atomic<int64_t> counted{0};

// Matrix products of torch by name, and which argument is the first matrix.
int first_matrix(std::string_view name) {
  if (name == "aten::mm" || name == "aten::bmm") return 0;
  if (name == "aten::addmm" || name == "aten::baddbmm") return 1;
  return -1;
}

std::unique_ptr<at::ObserverContext> count(const at::RecordFunction& call) {
  const int first = first_matrix(call.name());
  if (first < 0) return nullptr;
  const auto inputs = call.inputs();
  const auto a = inputs[size_t(first)].toTensor(), b = inputs[size_t(first) + 1].toTensor();
  counted += a.numel() * b.size(-1);  // [batch,] n x k times k x m
  return nullptr;
}
}  // namespace

FlopCounter::FlopCounter() {
  counted = 0;
  handle_ = at::addGlobalCallback(at::RecordFunctionCallback(count).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
}

FlopCounter::~FlopCounter() { at::removeCallback(handle_); }

int64_t FlopCounter::multiply_adds() const { return counted; }

}  // namespace fovea::recipes
