#pragma once
#include <torch/torch.h>

namespace fovea::nn {

/// Fills `tensor` with a normal distribution cut at [low, high], by the inverse of its distribution function, so that
/// every draw is used. Draws from torch's default generator. Defaults: the vision transformers' std 0.02 cut at +-2.
void truncated_normal_(torch::Tensor tensor, double std = 0.02, double low = -2.0, double high = 2.0);

}  // namespace fovea::nn
