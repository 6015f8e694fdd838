#pragma once
#include <string>
#include <vector>

#include <torch/torch.h>

#include "fovea/io/safetensors.h"

namespace fovea::data {

/// A tensor of a file as a torch tensor of the same dtype, on a copy of its memory.
/// Errors   ArgumentError for u16, u32 and u64, which networks do not use; `name` is named
torch::Tensor to_torch(const io::TensorData& data, const std::string& name = "tensor");

/// A tensor's elements in C order, whatever its layout, device or dtype.
/// Errors   ArgumentError for dtypes that files do not hold (complex, quantised)
io::TensorData from_torch(const torch::Tensor& tensor);

/// All elements in C order as doubles, without gradient.
std::vector<double> to_doubles(const torch::Tensor& tensor);

}  // namespace fovea::data
