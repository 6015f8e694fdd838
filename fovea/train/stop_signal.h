#pragma once

namespace fovea::train {

/// While one lives, the first SIGINT or SIGTERM only sets a flag; a second one ends the process at once. Long callbacks
/// may ask stop_requested() and return early.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;
};

bool stop_requested();

}  // namespace fovea::train
