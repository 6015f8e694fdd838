#pragma once
#include <torch/nn/module.h>
#include <torch/types.h>

#include <string>

#include "fovea/io/safetensors.h"

namespace fovea::train {

/// A copy of the tensor as bytes, C-contiguous. Errors: ArgumentError for a dtype without a safetensors name.
io::TensorData to_tensor_data(const torch::Tensor& tensor);
/// A tensor of its own memory.
torch::Tensor to_tensor(const io::TensorData& data);

/// All parameters and buffers by name.
io::TensorMap module_state(const torch::nn::Module& module);
/// Copies `state` into the parameters and buffers of the same names. Everything is checked before anything is written.
/// Errors   ArgumentError "<where>: ..." naming the first missing, unknown or misshapen tensor.
void load_module_state(torch::nn::Module& module, const io::TensorMap& state, const std::string& where);

}  // namespace fovea::train
