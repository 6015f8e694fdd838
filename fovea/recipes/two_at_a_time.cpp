#include "fovea/recipes/two_at_a_time.h"

#include <exception>
#include <mutex>
#include <thread>

#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

void two_at_a_time(size_t jobs, const std::function<void(size_t)>& run) {
  std::mutex mutex;
  size_t next = 0;
  std::exception_ptr failure;
  const auto work = [&] {
    const OneThread one_thread;
    while (true) {
      size_t mine;
      {
        const std::lock_guard lock(mutex);
        if (next == jobs || failure) return;
        mine = next++;
      }
      try {
        run(mine);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
      }
    }
  };
  std::thread other(work);
  work();
  other.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace fovea::recipes
