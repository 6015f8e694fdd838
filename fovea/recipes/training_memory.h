#pragma once
#include <string>

#include "fovea/data/plan.h"

namespace fovea::recipes {

struct TrainingMemoryOptions {
  bool bf16 = false;      // train.precision
  bool averaged = false;  // train.average_decay
};

/// Bytes that `fovea train` takes at its peak, of a network by name and fields of its configuration, as in a plan: program,
/// cases that are kept, weights and moments, and what forward keeps for backward or, where that is less, a checkpoint. All of
/// it follows from sizes, so that a plan is the same every time; the constants were fitted to peaks of `fovea train` and
/// tests/python/cli/test_memory_estimate.py holds them to 10 %. Held-out scans are not in it: a large one with many classes
/// may take more than the training itself (infer::plan_prediction()).
/// Cost     the parameters are counted once, when first asked: a second for 62 million
/// Errors   ArgumentError as infer::network_from_json(), at once
data::MemoryEstimate training_memory_estimate(const std::string& network, const nlohmann::ordered_json& config,
                                              const TrainingMemoryOptions& options = {});

}  // namespace fovea::recipes
