#pragma once
#include <cstdint>
#include <string>

#include "fovea/data/plan.h"
#include "fovea/models/registry.h"

namespace fovea::recipes {

/// Where the memory of a training goes, in bytes. All of it follows from sizes, so that a plan is the same every time; the
/// constants were fitted to peaks of `fovea train` and tests/python/cli/test_memory_estimate.py holds them to 10 %. Held-out
/// scans are not in it: a large one with many classes may take more than the training itself (infer::plan_prediction()).
struct TrainingMemory {
  int64_t program = 0;     // code, libraries, buffers
  int64_t cases = 0;       // preprocessed cases that are kept
  int64_t weights = 0;     // and the optimiser's two moments
  int64_t step = 0;        // what forward keeps for backward
  int64_t checkpoint = 0;  // gradients and the copy that is written, when no step is in work
  int64_t peak() const;
};

struct TrainingMemoryOptions {
  bool bf16 = false;      // train.precision
  bool averaged = false;  // train.average_decay
};

/// parameters: of the network.
TrainingMemory training_memory(const models::NetworkConfig& network, int64_t parameters, const data::TrainingSize& size,
                               const TrainingMemoryOptions& options = {});

/// The peak of a network that is given by name and fields of its configuration, as in a plan. Its parameters are counted
/// once, when first asked: a second for 62 million.
/// Errors   ArgumentError as infer::network_from_json(), at once
data::MemoryEstimate training_memory_estimate(const std::string& network, const nlohmann::ordered_json& config,
                                              const TrainingMemoryOptions& options = {});

}  // namespace fovea::recipes
