#include "fovea/ops/parallel.h"

#include <ATen/Parallel.h>

namespace fovea::ops {

void torch_parallel_for(int64_t n, int64_t grain, const ParallelBody& body) {
  at::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) { body(begin, end); });
}

}  // namespace fovea::ops
