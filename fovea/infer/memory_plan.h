#pragma once
#include <cstdint>
#include <string>

#include "fovea/infer/sliding_window.h"

namespace fovea::infer {

/// What one batch of windows costs the network.
struct NetworkProbe {
  int64_t classes = 0;
  int64_t peak_bytes = 0;  // beside the weights: activations, and the logits (with mirroring, their sum)
};

/// Runs the network once on a batch of zeros and measures the peak of this process while it runs (VmHWM above VmRSS). On
/// systems that do not let a process reset its peak the figure is at least the windows and three times the logits.
/// Cost     one batch of windows.
NetworkProbe probe_network(const WindowNetwork& network, int64_t channels, const SlidingWindowConfig& config);

struct PredictionProblem {
  Triple shape{};             // of the image that the windows slide over
  NetworkProbe network;
  int64_t resident_bytes = 0; // the process as it is now: program, libraries, weights, and the image if it is loaded
  int64_t image_bytes = 0;    // what is still to be loaded
  int64_t other_bytes = 0;    // what comes after: labels on the source grid, files being written
  int64_t channels = 1;
  int64_t limit_bytes = 0;    // 0: no limit, one stripe
};

/// Where the memory of a prediction goes, and how the volume is cut so that it fits.
struct MemoryPlan {
  Stripes stripes;
  int64_t windows = 0, windows_uncut = 0;  // the price of cutting: windows / windows_uncut
  int64_t resident_bytes = 0, image_bytes = 0, label_bytes = 0, accumulator_bytes = 0, network_bytes = 0, other_bytes = 0;
  int64_t peak_bytes = 0;        // sum, accumulators and network together being the working set, or what comes after
  int64_t dense_score_bytes = 0; // what the full volume of scores would have taken
  std::string to_string() const;
};

/// Chooses, among all ways to cut along Y and X that fit the limit, the one with the fewest windows.
/// Errors   ResourceError "needs A GiB, limit B GiB, try ..." when even the narrowest stripes do not fit.
MemoryPlan plan_prediction(const PredictionProblem& problem, const SlidingWindowConfig& config);

/// "4G", "512M", "1.5GiB", "2000000000" -> bytes; G, M, K are powers of 1024. Errors: ArgumentError.
int64_t parse_bytes(const std::string& text);

}  // namespace fovea::infer
