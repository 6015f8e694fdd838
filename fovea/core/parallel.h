#pragma once
#include <cstdint>
#include <functional>

namespace fovea {

/// The work of [begin, end).
using ParallelBody = std::function<void(int64_t begin, int64_t end)>;

/// Splits [0, n) into chunks of at least `grain` and runs them, perhaps on several threads; returns when all are done.
/// Code that uses it gives the same bits for any split: what is summed is summed in an order fixed by the data.
using ParallelFor = std::function<void(int64_t n, int64_t grain, const ParallelBody& body)>;

/// All of it on the calling thread.
inline void serial_for(int64_t n, int64_t /*grain*/, const ParallelBody& body) {
  if (n > 0) body(0, n);
}

}  // namespace fovea
