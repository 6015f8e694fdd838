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

namespace {
using Grid = std::array<int64_t, 3>;
int64_t size_of(const Grid& grid) { return grid[0] * grid[1] * grid[2]; }

// Hides or shows random patches until `kept` stay.
std::vector<int64_t> with_exactly(std::vector<bool> hidden, int64_t kept, Rng& rng) {
  std::vector<int64_t> shown, rest;
  for (size_t i = 0; i < hidden.size(); ++i) (hidden[i] ? rest : shown).push_back(int64_t(i));
  auto& from = int64_t(shown.size()) > kept ? shown : rest;
  auto& to = int64_t(shown.size()) > kept ? rest : shown;
  while (int64_t(shown.size()) != kept) {
    const size_t at = size_t(rng.below(from.size()));
    to.push_back(from[at]);
    from[at] = from.back();
    from.pop_back();
  }
  std::sort(shown.begin(), shown.end());
  return shown;
}

std::vector<bool> hide_boxes(const Grid& grid, int64_t kept, Rng& rng) {
  std::vector<bool> hidden(size_t(size_of(grid)));
  for (int64_t left = size_of(grid) - kept; left > 0;) {
    Grid edge{}, begin{};
    for (int axis = 0; axis < 3; ++axis) {
      const int64_t shortest = std::max<int64_t>(grid[axis] / 4, 1), longest = std::max<int64_t>(grid[axis] / 2, 1);
      edge[axis] = shortest + int64_t(rng.below(uint64_t(longest - shortest + 1)));
      begin[axis] = int64_t(rng.below(uint64_t(grid[axis] - edge[axis] + 1)));
    }
    for (int64_t z = begin[0]; z < begin[0] + edge[0]; ++z)
      for (int64_t y = begin[1]; y < begin[1] + edge[1]; ++y)
        for (int64_t x = begin[2]; x < begin[2] + edge[2] && left > 0; ++x) {
          const auto at = size_t((z * grid[1] + y) * grid[2] + x);
          if (!hidden[at]) hidden[at] = true, --left;
        }
  }
  return hidden;
}

std::vector<bool> hide_all_but_a_lattice(const Grid& grid, double ratio, Rng& rng) {
  int axes = 0;
  for (const int64_t edge : grid) axes += edge > 1;
  const int64_t step = std::max<int64_t>(std::lround(std::pow(1 - ratio, -1.0 / std::max(axes, 1))), 1);
  Grid origin{};
  for (int axis = 0; axis < 3; ++axis) origin[axis] = int64_t(rng.below(uint64_t(std::min(step, grid[axis]))));
  std::vector<bool> hidden(size_t(size_of(grid)), true);
  for (int64_t z = origin[0]; z < grid[0]; z += step)
    for (int64_t y = origin[1]; y < grid[1]; y += step)
      for (int64_t x = origin[2]; x < grid[2]; x += step) hidden[size_t((z * grid[1] + y) * grid[2] + x)] = false;
  return hidden;
}
}  // namespace

int64_t kept_patches(const Grid& grid, double ratio, PatchMask mask) {
  return mask == PatchMask::kTube ? grid[0] * kept_patches(grid[1] * grid[2], ratio) : kept_patches(size_of(grid), ratio);
}

std::vector<int64_t> draw_kept_patches(const Grid& grid, double ratio, PatchMask mask, Rng& rng) {
  const int64_t kept = kept_patches(grid, ratio, mask), slice = grid[1] * grid[2];
  switch (mask) {
    case PatchMask::kRandom: return draw_kept_patches(size_of(grid), ratio, rng);
    case PatchMask::kBlock: return with_exactly(hide_boxes(grid, kept, rng), kept, rng);
    case PatchMask::kGrid: return with_exactly(hide_all_but_a_lattice(grid, ratio, rng), kept, rng);
    case PatchMask::kTube: break;
  }
  const auto tubes = draw_kept_patches(slice, ratio, rng);
  std::vector<int64_t> patches;
  for (int64_t z = 0; z < grid[0]; ++z)
    for (const int64_t tube : tubes) patches.push_back(z * slice + tube);
  return patches;
}

}  // namespace fovea::data
