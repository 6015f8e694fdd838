#pragma once
#include <cstdint>
#include <vector>

#include "fovea/core/rng.h"

namespace fovea::data {

/// How many of `tokens` patches stay when a share `ratio` is hidden: the whole part of tokens * (1 - ratio).
/// Errors   ArgumentError: ratio outside [0, 1), tokens below 1
/// Source   He et al. 2022 (MAE), arXiv:2111.06377, section 3
int64_t kept_patches(int64_t tokens, double ratio);

/// Which ones: a uniformly random subset, ascending.
std::vector<int64_t> draw_kept_patches(int64_t tokens, double ratio, Rng& rng);

}  // namespace fovea::data
