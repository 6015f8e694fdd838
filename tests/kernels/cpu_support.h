#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include "fovea/core/isa.h"
#include "fovea/core/parallel.h"

// What tests of the SIMD kernels need beside problems.h.
namespace fovea::kernels {

/// Every instruction set that this machine can run kernels for.
inline std::vector<Isa> testable_isas() {
  std::vector<Isa> all;
  for (Isa isa : {Isa::kNeon, Isa::kAvx2, Isa::kAvx512})
    if (best_isa() == isa || (isa != Isa::kNeon && best_isa() > isa && best_isa() != Isa::kNeon)) all.push_back(isa);
  return all;
}

/// FOVEA_FULL=1 asks for the long version of a sweep, which says how long it is.
inline int sweep_length(int usual, int full) {
  const char* value = std::getenv("FOVEA_FULL");
  if (!value || std::strcmp(value, "1") != 0) return usual;
  std::printf("sweep of %d random shapes\n", full);
  return full;
}

/// On how many threads a computation is done again for its bits to be compared: 1 to 8, and FOVEA_FULL=1 that 125 times.
inline std::vector<int> rerun_threads() {
  const char* value = std::getenv("FOVEA_FULL");
  const int rounds = value && std::strcmp(value, "1") == 0 ? 125 : 1;
  if (rounds > 1) std::printf("%d reruns on 1 to 8 threads\n", 8 * rounds);
  std::vector<int> all;
  for (int i = 0; i < 8 * rounds; ++i) all.push_back(1 + i % 8);
  return all;
}

/// Splits work into `parts` contiguous chunks, each on a thread of its own.
inline ParallelFor threads(int parts) {
  return [parts](int64_t n, int64_t, const ParallelBody& body) {
    std::vector<std::thread> all;
    for (int64_t t = 0; t < parts; ++t)
      if (n * t / parts < n * (t + 1) / parts) all.emplace_back(body, n * t / parts, n * (t + 1) / parts);
    for (std::thread& t : all) t.join();
  };
}

/// Memory whose last (or first) byte touches a page that may not be read.
class GuardedMemory {
 public:
  enum class Guard { kBefore, kAfter };
  GuardedMemory(const std::vector<float>& values, Guard guard) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), bytes = values.size() * sizeof(float);
    const size_t middle = (bytes + page - 1) / page * page;
    size_ = middle + 2 * page;
    base_ = static_cast<char*>(mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (middle) mprotect(base_ + page, middle, PROT_READ | PROT_WRITE);
    data_ = base_ + page + (guard == Guard::kAfter ? middle - bytes : 0);
    if (bytes) std::memcpy(data_, values.data(), bytes);
  }
  ~GuardedMemory() { munmap(base_, size_); }
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;
  float* data() const { return reinterpret_cast<float*>(data_); }

 private:
  char *base_, *data_;
  size_t size_;
};

/// A buffer with bands of NaN on both sides; intact() says that nobody wrote to them.
class BandedMemory {
 public:
  explicit BandedMemory(size_t n) : memory_(n + 2 * kBand, mark()), n_(n) {}
  float* data() { return memory_.data() + kBand; }
  std::vector<float> values() const { return {memory_.begin() + kBand, memory_.begin() + kBand + n_}; }
  bool intact() const {
    const float m = mark();
    for (size_t i = 0; i < kBand; ++i)
      if (std::memcmp(&memory_[i], &m, 4) != 0 || std::memcmp(&memory_[kBand + n_ + i], &m, 4) != 0) return false;
    return true;
  }

 private:
  static constexpr size_t kBand = 64;
  static float mark() { return std::numeric_limits<float>::quiet_NaN(); }
  std::vector<float> memory_;
  size_t n_;
};

}  // namespace fovea::kernels
