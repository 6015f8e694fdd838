#include "fovea/core/rng.h"

#include <cmath>
#include <numbers>

namespace fovea {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * counter[0], p1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += 0x9E3779B9, key[1] += 0xBB67AE85;
  }
  return counter;
}

uint32_t Rng::next_u32() {
  if (used_ == 4) block_ = philox4x32(counter_, key_), ++counter_[0], used_ = 0;
  return block_[used_++];
}

float Rng::normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_;
  }
  const float radius = std::sqrt(-2.f * std::log(1.f - uniform())), angle = 2.f * std::numbers::pi_v<float> * uniform();
  spare_ = radius * std::sin(angle), has_spare_ = true;
  return radius * std::cos(angle);
}

uint64_t Rng::below(uint64_t n) {
  const uint64_t limit = UINT64_MAX - UINT64_MAX % n;
  uint64_t draw;
  do draw = next_u64(); while (draw >= limit);
  return draw % n;
}

}  // namespace fovea
