#include "fovea/nn/mlp.h"

#include "fovea/nn/trace.h"

namespace fovea::nn {

MlpImpl::MlpImpl(const MlpOptions& options) {
  linear1 = register_module("linear1", torch::nn::Linear(options.dim(), options.hidden()));
  linear2 = register_module("linear2", torch::nn::Linear(options.hidden(), options.dim()));
  drop = register_module("drop", torch::nn::Dropout(options.dropout()));
}

torch::Tensor MlpImpl::forward(const torch::Tensor& x) {
  return traced(this, drop(linear2(drop(torch::gelu(linear1(x))))));
}

}  // namespace fovea::nn
