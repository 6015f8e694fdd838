#include "fovea/train/tensor_map.h"

#include <torch/torch.h>

#include <array>
#include <cstring>
#include <utility>

#include "fovea/core/error.h"

namespace fovea::train {
namespace {

constexpr std::array kTypes{std::pair{at::kBool, DType::kBool}, std::pair{at::kByte, DType::kU8},
                            std::pair{at::kChar, DType::kI8},   std::pair{at::kShort, DType::kI16},
                            std::pair{at::kInt, DType::kI32},   std::pair{at::kLong, DType::kI64},
                            std::pair{at::kHalf, DType::kF16},  std::pair{at::kBFloat16, DType::kBF16},
                            std::pair{at::kFloat, DType::kF32}, std::pair{at::kDouble, DType::kF64}};

template <class Sizes>
std::string shape_text(const Sizes& sizes) {
  std::string text = "[";
  for (const int64_t s : sizes) text += (text.size() > 1 ? "," : "") + std::to_string(s);
  return text + "]";
}

/// Name and tensor of all parameters, then all buffers.
std::vector<std::pair<std::string, torch::Tensor>> all_tensors(const torch::nn::Module& module) {
  std::vector<std::pair<std::string, torch::Tensor>> all;
  for (const auto& item : module.named_parameters()) all.emplace_back(item.key(), item.value());
  for (const auto& item : module.named_buffers()) all.emplace_back(item.key(), item.value());
  return all;
}

}  // namespace

io::TensorData to_tensor_data(const torch::Tensor& tensor) {
  const torch::Tensor t = tensor.detach().to(at::kCPU).contiguous();
  for (const auto& [torch_type, type] : kTypes) {
    if (torch_type != t.scalar_type()) continue;
    io::TensorData out{type, t.sizes().vec(), std::vector<std::byte>(t.nbytes())};
    if (t.nbytes() > 0) std::memcpy(out.data.data(), t.const_data_ptr(), t.nbytes());
    return out;
  }
  throw ArgumentError(std::string("a tensor of type ") + at::toString(t.scalar_type()) +
                      " cannot be saved; expected bool, an integer or a float");
}

torch::Tensor to_tensor(const io::TensorData& data) {
  for (const auto& [torch_type, type] : kTypes) {
    if (type != data.dtype) continue;
    torch::Tensor t = torch::empty(data.shape, torch_type);
    FOVEA_CHECK(t.nbytes() == data.data.size(), "tensor bytes do not fit its shape");
    if (t.nbytes() > 0) std::memcpy(t.mutable_data_ptr(), data.data.data(), t.nbytes());
    return t;
  }
  throw ArgumentError("a tensor of type " + std::string(name_of(data.dtype)) + " has no counterpart in torch");
}

io::TensorMap module_state(const torch::nn::Module& module) {
  io::TensorMap state;
  for (const auto& [name, tensor] : all_tensors(module)) state[name] = to_tensor_data(tensor);
  return state;
}

void load_module_state(torch::nn::Module& module, const io::TensorMap& state, const std::string& where) {
  const auto targets = all_tensors(module);
  std::vector<std::string> names;
  for (const auto& [name, tensor] : targets) {
    names.push_back(name);
    const auto found = state.find(name);
    if (found == state.end())
      throw ArgumentError(where + ": tensor " + name + " is missing; is it of another network?");
    if (tensor.sizes() != torch::IntArrayRef(found->second.shape)) {
      throw ArgumentError(where + ": tensor " + name + " has shape " + shape_text(found->second.shape) + ", expected " +
                          shape_text(tensor.sizes()) + "; is it of another network?");
    }
  }
  if (state.size() != targets.size()) {
    for (const auto& [name, data] : state) {
      if (std::find(names.begin(), names.end(), name) != names.end()) continue;
      throw ArgumentError(
          where + ": tensor " + name + " is unknown to the network" +
          (nearest_name(name, names).empty() ? "" : "; the nearest name is " + nearest_name(name, names)));
    }
  }
  const torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : targets) torch::Tensor(tensor).copy_(to_tensor(state.at(name)));
}

}  // namespace fovea::train
