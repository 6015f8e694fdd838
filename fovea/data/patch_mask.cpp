#include "fovea/data/patch_mask.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "fovea/core/error.h"

namespace fovea::data {

int64_t kept_patches(int64_t tokens, double ratio) {
  if (tokens < 1) throw ArgumentError("patch mask: " + std::to_string(tokens) + " tokens, expected at least 1");
  if (!(ratio >= 0 && ratio < 1))
    throw ArgumentError("patch mask: ratio is " + std::to_string(ratio) + ", expected 0 <= ratio < 1");
  return int64_t(
      std::floor(double(tokens) * (1 - ratio) + 1e-6));  // 10 of 100 at 0.9, whatever the rounding of 1 - 0.9
}

std::vector<int64_t> draw_kept_patches(int64_t tokens, double ratio, Rng& rng) {
  const int64_t kept = kept_patches(tokens, ratio);
  std::vector<int64_t> patches(tokens);
  std::iota(patches.begin(), patches.end(), 0);
  for (int64_t i = 0; i < kept; ++i) std::swap(patches[i], patches[i + int64_t(rng.below(uint64_t(tokens - i)))]);
  patches.resize(kept);
  std::sort(patches.begin(), patches.end());
  return patches;
}

}  // namespace fovea::data
