#pragma once
#include "fovea/core/parallel.h"

namespace fovea::ops {

/// The kernels' parallel_for on torch's own thread pool: torch::set_num_threads governs both.
void torch_parallel_for(int64_t n, int64_t grain, const ParallelBody& body);

}  // namespace fovea::ops
