#pragma once
#include <cstdint>
#include <memory>
#include <new>

namespace fovea::kernels::cpu {

constexpr std::align_val_t kCacheLine{64};

struct AlignedFree {
  void operator()(void* memory) const { operator delete[](memory, kCacheLine); }
};

/// Numbers that start on a cache line, which is also a whole vector.
template <class T>
using AlignedMemory = std::unique_ptr<T[], AlignedFree>;

/// Memory for n numbers, not initialised.
template <class T>
AlignedMemory<T> aligned_memory(int64_t n) {
  return AlignedMemory<T>(static_cast<T*>(operator new[](static_cast<size_t>(n) * sizeof(T), kCacheLine)));
}

}  // namespace fovea::kernels::cpu
