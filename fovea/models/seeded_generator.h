#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <torch/types.h>

namespace fovea::models {

/// Seeds torch's default generator, and puts its former state back at the end.
class SeededGenerator {
 public:
  explicit SeededGenerator(uint64_t seed) : generator_(at::detail::getDefaultCPUGenerator()), state_(generator_.get_state()) {
    generator_.set_current_seed(seed);
  }
  ~SeededGenerator() { generator_.set_state(state_); }

 private:
  at::Generator generator_;
  torch::Tensor state_;
};

}  // namespace fovea::models
