#pragma once
#include <torch/torch.h>

namespace fovea::nn {

/// Normalises each channel of each sample over its voxels: mean 0, (biased) variance 1. No parameters, no running mean.
/// Shapes   x [B,C,Z,Y,X] -> same
/// Source   Ulyanov et al. 2016, arXiv:1607.08022
torch::Tensor instance_norm(const torch::Tensor& x, double epsilon = 1e-5);

}  // namespace fovea::nn
