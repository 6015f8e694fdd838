#include "fovea/data/torch_tensor.h"

#include <cstring>

#include "fovea/core/error.h"

namespace fovea::data {
namespace {

struct Pair {
  DType ours;
  torch::ScalarType theirs;
};
constexpr Pair kPairs[] = {
    {DType::kBool, torch::kBool},   {DType::kU8, torch::kByte},   {DType::kI8, torch::kChar},      {DType::kI16, torch::kShort}, {DType::kI32, torch::kInt},
    {DType::kI64, torch::kLong},    {DType::kF16, torch::kHalf},  {DType::kBF16, torch::kBFloat16}, {DType::kF32, torch::kFloat}, {DType::kF64, torch::kDouble},
};

}  // namespace

torch::Tensor to_torch(const io::TensorData& data, const std::string& name) {
  for (const auto& pair : kPairs) {
    if (pair.ours != data.dtype) continue;
    auto tensor = torch::empty(data.shape, pair.theirs);
    FOVEA_CHECK(tensor.nbytes() == data.data.size(), name + " has " + std::to_string(data.data.size()) + " bytes, its shape needs " + std::to_string(tensor.nbytes()));
    if (!data.data.empty()) std::memcpy(tensor.data_ptr(), data.data.data(), data.data.size());
    return tensor;
  }
  throw ArgumentError(name + ": dtype is " + std::string(name_of(data.dtype)) + ", expected bool, u8, i8, i16, i32, i64, f16, bf16, f32 or f64");
}

io::TensorData from_torch(const torch::Tensor& tensor) {
  const auto dense = tensor.detach().cpu().contiguous();
  for (const auto& pair : kPairs) {
    if (pair.theirs != dense.scalar_type()) continue;
    io::TensorData data{pair.ours, dense.sizes().vec(), std::vector<std::byte>(dense.nbytes())};
    if (!data.data.empty()) std::memcpy(data.data.data(), dense.data_ptr(), data.data.size());
    return data;
  }
  throw ArgumentError(std::string("dtype ") + torch::toString(dense.scalar_type()) + " has no place in a tensor file");
}

std::vector<double> to_doubles(const torch::Tensor& tensor) {
  const auto flat = tensor.detach().to(torch::kDouble).contiguous();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

}  // namespace fovea::data
