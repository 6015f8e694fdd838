#include "fovea/data/patch_sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "fovea/core/error.h"

namespace fovea::data {

template <class T>
ForegroundIndex ForegroundIndex::of(const View<const T, 3>& label, int64_t classes) {
  ForegroundIndex index;
  index.counts.assign(classes, 0), index.voxels.resize(classes);
  const int64_t n = label.size();
  for (int64_t i = 0; i < n; ++i) {
    if (label.data[i] < 0 || label.data[i] >= classes)
      throw ArgumentError("foreground index: class " + std::to_string(label.data[i]) + ", expected 0 to " +
                          std::to_string(classes - 1));
    ++index.counts[label.data[i]];
  }
  for (int64_t k = 1; k < classes; ++k)
    if (index.counts[k] > 0)
      index.present.push_back(static_cast<int>(k)), index.voxels[k].reserve(std::min(index.counts[k], kept));
  // The r-th voxel of a class with m > kept voxels is kept when floor(r * kept / m) steps.
  std::vector<int64_t> rank(classes, 0);
  for (int64_t i = 0; i < n; ++i) {
    const auto k = label.data[i];
    if (k == 0) continue;
    const int64_t r = rank[k]++, m = index.counts[k];
    if (m <= kept || (r + 1) * kept / m != r * kept / m) index.voxels[k].push_back(i);
  }
  return index;
}
template ForegroundIndex ForegroundIndex::of(const View<const uint8_t, 3>&, int64_t);
template ForegroundIndex ForegroundIndex::of(const View<const int16_t, 3>&, int64_t);

bool forces_foreground(uint32_t index, double fraction) {
  return std::floor((double(index) + 1) * fraction) > std::floor(double(index) * fraction);
}

int64_t case_of_sample(uint64_t seed, uint32_t epoch, uint32_t index, int64_t cases) {
  const uint32_t round = index / static_cast<uint32_t>(cases);
  std::vector<int64_t> order(cases);
  std::iota(order.begin(), order.end(), 0);
  Rng rng(seed, epoch, round, kCaseOrder);
  for (int64_t i = cases - 1; i > 0; --i) std::swap(order[i], order[rng.below(i + 1)]);
  return order[index % cases];
}

PatchPosition choose_position(const std::array<int64_t, 3>& volume, const std::array<int64_t, 3>& patch,
                              const ForegroundIndex& foreground, bool forced, const SampleKey& key) {
  Rng rng = key.rng(kPosition);
  PatchPosition position;
  if (forced && !foreground.present.empty()) {
    position.forced_class = foreground.present[rng.below(foreground.present.size())];
    const auto& voxels = foreground.voxels[position.forced_class];
    int64_t at = voxels[rng.below(voxels.size())];
    for (int a = 2; a >= 0; --a) position.begin[a] = at % volume[a] - patch[a] / 2, at /= volume[a];
  }
  for (int a = 0; a < 3; ++a) {
    const int64_t room = volume[a] - patch[a];
    if (room <= 0)
      position.begin[a] = -(-room / 2);
    else if (position.forced_class)
      position.begin[a] = std::clamp<int64_t>(position.begin[a], 0, room);
    else
      position.begin[a] = static_cast<int64_t>(rng.below(room + 1));
  }
  return position;
}

}  // namespace fovea::data
