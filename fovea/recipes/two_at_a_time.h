#pragma once
#include <cstddef>
#include <functional>

namespace fovea::recipes {

/// run(0) ... run(jobs - 1), two at a time and each with torch on one thread, so that nothing depends on the machine's
/// threads. A failure of one is thrown when all that had begun have ended.
void two_at_a_time(size_t jobs, const std::function<void(size_t)>& run);

}  // namespace fovea::recipes
