#include "fovea/train/bad_layer.h"

#include <ATen/record_function.h>
#include <torch/torch.h>

#include <cmath>
#include <unordered_map>

namespace fovea::train {
namespace {

// Zero times a number is zero, but NaN when it is not finite; sums beside each other, for the compiler to make vectors of.
template <class T>
bool all_finite(const T* x, int64_t n) {
  constexpr int64_t lanes = 16;
  T sums[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int64_t j = 0; j < lanes; ++j) sums[j] += x[i + j] * T(0);
  T total = 0;
  for (; i < n; ++i) total += x[i] * T(0);
  for (const T sum : sums) total += sum;
  return total == 0;
}

// One pass over the memory of a dense tensor and no other memory: asked of every weight after every step.
bool has_bad_number(const torch::Tensor& t) {
  if (!t.is_floating_point()) return false;
  if (!t.device().is_cpu() || !t.is_non_overlapping_and_dense() || (t.scalar_type() != at::kFloat && t.scalar_type() != at::kDouble))
    return !torch::isfinite(t).all().item<bool>();
  return AT_DISPATCH_FLOATING_TYPES(t.scalar_type(), "has_bad_number", [&] { return !all_finite(t.const_data_ptr<scalar_t>(), t.numel()); });
}

/// What the observer of torch's operators has seen. Operators take parameters as inputs, which tells the layer.
struct Watch {
  std::unordered_map<const void*, std::string> layer_of;  // by address of the parameter's memory
  std::string layer = "the input";
  std::string found_nan, found_infinity;
};
thread_local Watch* watch = nullptr;  // callbacks are plain functions

std::string layer_name(const std::string& parameter) {
  const size_t dot = parameter.rfind('.');
  return dot == parameter.npos ? parameter : parameter.substr(0, dot);
}

std::unique_ptr<at::ObserverContext> before(const at::RecordFunction& function) {
  for (const c10::IValue& input : function.inputs()) {
    if (!input.isTensor() || !input.toTensor().defined() || !input.toTensor().has_storage()) continue;
    const auto found = watch->layer_of.find(input.toTensor().storage().data());
    if (found != watch->layer_of.end()) watch->layer = layer_name(found->second);
  }
  return nullptr;
}

void after(const at::RecordFunction& function, at::ObserverContext*) {
  const std::string name = function.name();
  if (!watch->found_nan.empty() || name.find("empty") != name.npos || name.find("resize") != name.npos)
    return;  // memory not yet written
  const at::DisableRecordFunctionGuard not_my_own_operators;
  for (const c10::IValue& output : function.outputs()) {
    if (!output.isTensor() || !output.toTensor().defined() || !output.toTensor().is_floating_point()) continue;
    const torch::Tensor t = output.toTensor().detach();
    const std::string text = "output of " + name + " in layer " + watch->layer;
    // Minus infinity alone is what attention masks are made of.
    if (torch::isnan(t).any().item<bool>()) {
      watch->found_nan = text;
    } else if (watch->found_infinity.empty() && torch::isposinf(t).any().item<bool>()) {
      watch->found_infinity = text;
    }
  }
}

}  // namespace

std::string first_bad_parameter(const std::vector<NamedParameter>& parameters) {
  for (const NamedParameter& p : parameters) {
    if (has_bad_number(p.value.detach())) return p.name;
  }
  return "";
}

std::string first_bad_layer(const std::vector<NamedParameter>& parameters, const std::function<torch::Tensor()>& loss) {
  if (const std::string name = first_bad_parameter(parameters); !name.empty()) return "weight " + name;
  Watch seen;
  for (const NamedParameter& p : parameters) seen.layer_of[p.value.storage().data()] = p.name;
  watch = &seen;
  const auto handle = at::addThreadLocalCallback(at::RecordFunctionCallback(before, after)
                                                     .needsInputs(true)
                                                     .needsOutputs(true)
                                                     .scopes({at::RecordScope::FUNCTION}));
  torch::Tensor value;
  try {
    value = loss();
  } catch (...) {
    at::removeCallback(handle);
    throw;
  }
  at::removeCallback(handle);
  if (!seen.found_infinity.empty()) return seen.found_infinity;  // it comes before the NaN that it makes
  if (!seen.found_nan.empty()) return seen.found_nan;
  if (!std::isfinite(value.item<double>())) return "the loss";
  value.backward();
  // Bad gradients travel from the output towards the input: the one nearest to the output is where they began.
  std::string found;
  for (const NamedParameter& p : parameters) {
    if (p.value.grad().defined() && has_bad_number(p.value.grad())) found = "gradient of " + p.name;
    p.value.mutable_grad().reset();
  }
  return found.empty() ? "nothing found when the last step was repeated" : found;
}

}  // namespace fovea::train
