#pragma once
#include <functional>

#include <torch/torch.h>

namespace fovea::nn {

/// f(x), of which only x is kept: backward runs f again to get at its activations. Random numbers that f draws from torch's
/// default generator are the same both times. Without gradients it is just f(x).
/// Limits   gradients of parameters that f uses go to their .grad, by torch::Tensor::backward(); torch::autograd::grad() does
///          not see them
/// Cost     one more forward of f; memory of its activations only while its backward runs
/// Source   Chen et al. 2016, "Training deep nets with sublinear memory cost", arXiv:1604.06174
torch::Tensor recomputed(const std::function<torch::Tensor(torch::Tensor)>& f, const torch::Tensor& x);

}  // namespace fovea::nn
