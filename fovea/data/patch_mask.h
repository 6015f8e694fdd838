#pragma once
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "fovea/core/rng.h"

namespace fovea::data {

/// How many of `tokens` patches stay when a share `ratio` is hidden: the whole part of tokens * (1 - ratio).
/// Errors   ArgumentError: ratio outside [0, 1), tokens below 1
/// Source   He et al. 2022 (MAE), arXiv:2111.06377, section 3
int64_t kept_patches(int64_t tokens, double ratio);

/// Which ones: a uniformly random subset, ascending.
std::vector<int64_t> draw_kept_patches(int64_t tokens, double ratio, Rng& rng);

/// Which patches of a grid are hidden.
enum class PatchMask {
  kRandom,  ///< each as likely as any other
  kBlock,   ///< boxes of 1/4 to 1/2 of each axis, until enough are hidden (Bao et al. 2022, arXiv:2106.08254, in 3-D)
  kTube,    ///< the same ones in every slice along Z (Tong et al. 2022, arXiv:2203.12602)
  kGrid,    ///< all but a lattice of equal steps with a random origin
};
inline auto config_names(PatchMask) {
  return std::array{std::pair{PatchMask::kRandom, "random"}, std::pair{PatchMask::kBlock, "block"}, std::pair{PatchMask::kTube, "tube"},
                    std::pair{PatchMask::kGrid, "grid"}};
}

/// How many patches of a grid Z, Y, X stay: kept_patches() of all, with kTube of each slice.
int64_t kept_patches(const std::array<int64_t, 3>& grid, double ratio, PatchMask mask);

/// Which ones, ascending, Z slowest. As many for every draw, so that masks make a batch.
std::vector<int64_t> draw_kept_patches(const std::array<int64_t, 3>& grid, double ratio, PatchMask mask, Rng& rng);

}  // namespace fovea::data
