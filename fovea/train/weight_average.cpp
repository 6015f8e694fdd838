#include "fovea/train/weight_average.h"

#include <torch/torch.h>

#include <algorithm>
#include <string>

#include "fovea/core/error.h"

namespace fovea::train {

WeightAverage::WeightAverage(const std::vector<NamedParameter>& parameters, double decay)
    : parameters_(parameters), decay_(decay) {
  if (!(decay >= 0 && decay < 1))
    throw ArgumentError("train: average_decay is " + std::to_string(decay) + ", expected in [0, 1)");
  if (!enabled()) return;
  for (const NamedParameter& p : parameters_) average_.push_back(p.value.detach().clone());
}

void WeightAverage::update(int64_t updates) {
  const double d = std::min(decay_, (1.0 + double(updates)) / (10.0 + double(updates)));
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < average_.size(); ++i) average_[i].lerp_(parameters_[i].value, 1 - d);
}

void WeightAverage::swap() {
  for (size_t i = 0; i < average_.size(); ++i) {
    char* a = static_cast<char*>(average_[i].mutable_data_ptr());
    char* w = static_cast<char*>(parameters_[i].value.mutable_data_ptr());
    std::swap_ranges(a, a + average_[i].nbytes(), w);  // clone() kept the memory order
  }
}

}  // namespace fovea::train
