#include "fovea/nn/instance_norm.h"

namespace fovea::nn {

torch::Tensor instance_norm(const torch::Tensor& x, double epsilon) {
  // Batch normalisation of one sample is the same mathematics on torch's only kernel that is quick on channels-last memory.
  std::vector<torch::Tensor> samples;
  for (const auto& sample : x.split(1)) {
    samples.push_back(std::get<0>(torch::native_batch_norm(sample, {}, {}, {}, {}, /*training=*/true, /*momentum=*/0.0, epsilon)));
  }
  return samples.size() == 1 ? samples[0] : torch::cat(samples);
}

}  // namespace fovea::nn
