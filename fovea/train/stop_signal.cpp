#include "fovea/train/stop_signal.h"

#include <atomic>
#include <csignal>

namespace fovea::train {
namespace {

std::atomic<bool> requested{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // so that a signal handler may write it
struct sigaction old_interrupt, old_terminate;

void request_stop(int) { requested.store(true); }

}  // namespace

StopSignal::StopSignal() {
  requested = false;
  struct sigaction action {};
  action.sa_handler = request_stop;
  // The second signal has its usual effect; system calls that were waiting go on.
  action.sa_flags = int(SA_RESETHAND | SA_RESTART);
  sigaction(SIGINT, &action, &old_interrupt);
  sigaction(SIGTERM, &action, &old_terminate);
}

StopSignal::~StopSignal() {
  sigaction(SIGINT, &old_interrupt, nullptr);
  sigaction(SIGTERM, &old_terminate, nullptr);
}

bool stop_requested() { return requested.load(); }

}  // namespace fovea::train
