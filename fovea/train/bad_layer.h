#pragma once
#include <torch/types.h>

#include <functional>
#include <string>
#include <vector>

#include "fovea/train/adamw.h"

namespace fovea::train {

/// Name of the first parameter that holds NaN or infinity, or "".
std::string first_bad_parameter(const std::vector<NamedParameter>& parameters);

/// Says where not-finite numbers of a training step come from, by repeating it under observation: "weight
/// enc.conv.weight", "output of aten::convolution in layer enc.conv", "gradient of enc.conv.weight", or that nothing
/// could be seen. `loss` computes the loss as the training step does. Leaves gradients undefined. Cost     one slow
/// training step.
std::string first_bad_layer(const std::vector<NamedParameter>& parameters, const std::function<torch::Tensor()>& loss);

}  // namespace fovea::train
