#pragma once
#include <ATen/Parallel.h>

namespace fovea::recipes {

/// torch runs on one thread for as long as it lives: for timings, and for problems so small that threads only wait for each other.
class OneThread {
 public:
  OneThread() { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  const int before_ = at::get_num_threads();
};

}  // namespace fovea::recipes
