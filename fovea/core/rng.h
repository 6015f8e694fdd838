#pragma once
#include <array>
#include <cstdint>

namespace fovea {

/// Counter-based random numbers: Philox4x32-10. The numbers depend on (seed, epoch, index, stream) alone, so data order
/// and augmentation need no generator state: a resumed run draws what the undisturbed one would have drawn.
/// `index` is the sample within the epoch, `stream` separates uses that must not share numbers.
/// Source  Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
class Rng {
 public:
  Rng(uint64_t seed, uint32_t epoch, uint32_t index, uint32_t stream = 0)
      : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)}, counter_{0, stream, index, epoch} {}

  uint32_t next_u32();
  uint64_t next_u64() { const uint64_t high = next_u32(); return high << 32 | next_u32(); }
  /// In [0, 1), 24 bits.
  float uniform() { return static_cast<float>(next_u32() >> 8) * 0x1p-24f; }
  float uniform(float low, float high) { return low + (high - low) * uniform(); }
  /// Normal, mean 0, deviation 1 (Box-Muller; the second number of a pair is kept).
  float normal();
  /// In [0, n), unbiased. n > 0.
  uint64_t below(uint64_t n);
  bool chance(float probability) { return uniform() < probability; }

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> block_{};
  int used_ = 4;
  float spare_ = 0;
  bool has_spare_ = false;
};

/// One Philox4x32-10 block.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

}  // namespace fovea
