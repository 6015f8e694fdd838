// Matrices of grey level against a size: the length of a run, of a zone, the number of dependent neighbours. One set of
// sums serves all three.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "fovea/data/radiomics_region.h"

namespace fovea::data {

namespace {
// How many things of a level have a size; only filled cells.
struct Cell {
  int64_t level;  // place in LevelGrid::levels
  double size, count;
};

struct LevelSizes {
  double level_non_uniformity = 0, level_non_uniformity_normalised = 0, level_variance = 0, high_level = 0;
  double large = 0, large_high = 0, large_low = 0, low_level = 0, entropy = 0;
  double size_non_uniformity = 0, size_non_uniformity_normalised = 0, share = 0, size_variance = 0;
  double small = 0, small_high = 0, small_low = 0;
};

LevelSizes sums_of(const std::vector<Cell>& cells, const std::vector<double>& levels) {
  LevelSizes r;
  double things = 0, voxels = 0;
  for (const Cell& c : cells) things += c.count, voxels += c.count * c.size;
  std::vector<double> of_level(levels.size(), 0);
  std::map<double, double> of_size;
  double mean_level = 0, mean_size = 0;
  for (const Cell& c : cells) {
    const double p = c.count / things, i2 = levels[c.level] * levels[c.level], j2 = c.size * c.size;
    of_level[c.level] += p, of_size[c.size] += p;
    mean_level += p * levels[c.level], mean_size += p * c.size;
    r.high_level += p * i2, r.low_level += p / i2;
    r.large += p * j2, r.large_high += p * j2 * i2, r.large_low += p * j2 / i2;
    r.small += p / j2, r.small_high += p / j2 * i2, r.small_low += p / j2 / i2;
    r.entropy -= p * std::log2(p + std::numeric_limits<double>::epsilon());
  }
  for (size_t i = 0; i < levels.size(); ++i) {
    r.level_non_uniformity_normalised += of_level[i] * of_level[i];
    r.level_variance += of_level[i] * (levels[i] - mean_level) * (levels[i] - mean_level);
  }
  for (const auto& [size, p] : of_size) {
    r.size_non_uniformity_normalised += p * p;
    r.size_variance += p * (size - mean_size) * (size - mean_size);
  }
  r.level_non_uniformity = r.level_non_uniformity_normalised * things;
  r.size_non_uniformity = r.size_non_uniformity_normalised * things;
  r.share = things / voxels;
  return r;
}

std::vector<double> run_order(const LevelSizes& r) {
  return {r.level_non_uniformity,
          r.level_non_uniformity_normalised,
          r.level_variance,
          r.high_level,
          r.large,
          r.large_high,
          r.large_low,
          r.low_level,
          r.entropy,
          r.size_non_uniformity,
          r.size_non_uniformity_normalised,
          r.share,
          r.size_variance,
          r.small,
          r.small_high,
          r.small_low};
}

// Lengths of runs of one level along a step: counts[level * longest + length - 1]. False when no line along the step
// meets two voxels of the mask: a mask that is flat across it says nothing about runs.
bool count_runs(const LevelGrid& grid, const Step& step, int64_t longest, std::vector<double>& counts) {
  const int64_t offset = step[0] * grid.stride[0] + step[1] * grid.stride[1] + step[2];
  std::fill(counts.begin(), counts.end(), 0);
  bool several = false;
  for (const int64_t at : grid.voxels) {
    const int32_t level = grid.index[at];
    if (grid.index[at - offset] == level) continue;  // not where a run begins
    int64_t length = 1;
    while (grid.index[at + length * offset] == level) ++length;
    counts[(level - 1) * longest + length - 1] += 1;
    several |= length > 1 || grid.index[at - offset] != 0 || grid.index[at + offset] != 0;
  }
  if (several) return true;
  // Voxels with a gap between them on one line count as well.
  for (const int64_t at : grid.voxels) {
    std::array<int64_t, 3> place = {at / grid.stride[0], at / grid.stride[1] % grid.shape[1], at % grid.shape[2]};
    for (int64_t next = at;;) {
      bool within = true;
      for (int a = 0; a < 3; ++a) place[a] += step[a], within &= place[a] >= 0 && place[a] < grid.shape[a];
      if (!within) break;
      next += offset;
      if (grid.index[next] != 0) return true;
    }
  }
  return false;
}

double run_weight(const Step& step, const std::array<double, 3>& spacing_mm, DirectionWeighting weighting) {
  double sum = 0, square = 0, largest = 0;
  for (int a = 0; a < 3; ++a) {
    const double d = std::abs(double(step[a])) * spacing_mm[a];
    sum += d, square += d * d, largest = std::max(largest, d);
  }
  switch (weighting) {
    case DirectionWeighting::kManhattan:
      return sum;
    case DirectionWeighting::kEuclidean:
      return std::sqrt(square);
    case DirectionWeighting::kInfinity:
      return largest;
    default:
      return 1;
  }
}

std::vector<Cell> filled_cells(const std::vector<double>& counts, int64_t sizes) {
  std::vector<Cell> cells;
  for (size_t i = 0; i < counts.size(); ++i)
    if (counts[i] != 0) cells.push_back({int64_t(i) / sizes, double(int64_t(i) % sizes + 1), counts[i]});
  return cells;
}

// Offsets of all neighbours, both of each pair.
std::vector<int64_t> neighbours(const LevelGrid& grid, const std::vector<int64_t>& distances, int plane_axis) {
  std::vector<int64_t> offsets;
  for (const Step& s : directions(distances, plane_axis)) {
    const int64_t offset = s[0] * grid.stride[0] + s[1] * grid.stride[1] + s[2];
    offsets.push_back(offset), offsets.push_back(-offset);
  }
  return offsets;
}
}  // namespace

std::vector<double> glrlm_features(const LevelGrid& grid, const RadiomicsOptions& options) {
  const int64_t longest = *std::max_element(grid.shape.begin(), grid.shape.end());
  std::vector<double> counts(grid.levels.size() * size_t(longest)), sum(counts.size(), 0), mean(16, 0);
  int filled = 0;
  const auto add_features = [&](const std::vector<double>& matrix) {
    const std::vector<Cell> cells = filled_cells(matrix, longest);
    if (cells.empty()) return;
    const std::vector<double> features = run_order(sums_of(cells, grid.levels));
    for (size_t f = 0; f < mean.size(); ++f) mean[f] += features[f];
    ++filled;
  };
  for (const Step& step : directions({1}, options.plane_axis)) {
    if (!count_runs(grid, step, longest, counts)) continue;
    if (options.weighting == DirectionWeighting::kMean) {
      add_features(counts);
    } else {
      const double weight = run_weight(step, grid.spacing_mm, options.weighting);
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += weight * counts[i];
    }
  }
  if (options.weighting != DirectionWeighting::kMean) add_features(sum);
  for (double& m : mean) m = filled ? m / filled : std::numeric_limits<double>::quiet_NaN();
  return mean;
}

std::vector<double> glszm_features(const LevelGrid& grid, const RadiomicsOptions& options) {
  const auto offsets = neighbours(grid, {1}, options.plane_axis);
  std::vector<int32_t> left = grid.index;  // 0: already in a zone
  std::map<std::pair<int64_t, int64_t>, double> zones;
  std::vector<int64_t> stack;
  for (const int64_t start : grid.voxels) {
    const int32_t level = left[start];
    if (level == 0) continue;
    int64_t size = 0;
    stack = {start}, left[start] = 0;
    while (!stack.empty()) {
      const int64_t at = stack.back();
      stack.pop_back(), ++size;
      for (const int64_t offset : offsets)
        if (left[at + offset] == level) left[at + offset] = 0, stack.push_back(at + offset);
    }
    zones[{level - 1, size}] += 1;
  }
  std::vector<Cell> cells;
  for (const auto& [key, count] : zones) cells.push_back({key.first, double(key.second), count});
  const LevelSizes r = sums_of(cells, grid.levels);
  return {r.level_non_uniformity,
          r.level_non_uniformity_normalised,
          r.level_variance,
          r.high_level,
          r.large,
          r.large_high,
          r.large_low,
          r.low_level,
          r.size_non_uniformity,
          r.size_non_uniformity_normalised,
          r.small,
          r.small_high,
          r.small_low,
          r.entropy,
          r.share,
          r.size_variance};
}

std::vector<double> gldm_features(const LevelGrid& grid, const RadiomicsOptions& options) {
  const auto offsets = neighbours(grid, options.distances, options.plane_axis);
  const auto sizes = int64_t(offsets.size()) + 1;
  std::vector<double> counts(grid.levels.size() * size_t(sizes), 0);
  for (const int64_t at : grid.voxels) {
    const int32_t here = grid.index[at];
    int64_t dependent = 0;
    for (const int64_t offset : offsets) {
      const int32_t there = grid.index[at + offset];
      dependent += there == here || (there != 0 && std::abs(grid.levels[there - 1] - grid.levels[here - 1]) <=
                                                       double(options.dependence));
    }
    counts[(here - 1) * sizes + dependent] += 1;
  }
  const LevelSizes r = sums_of(filled_cells(counts, sizes), grid.levels);
  return {r.entropy,
          r.size_non_uniformity,
          r.size_non_uniformity_normalised,
          r.size_variance,
          r.level_non_uniformity,
          r.level_variance,
          r.high_level,
          r.large,
          r.large_high,
          r.large_low,
          r.low_level,
          r.small,
          r.small_high,
          r.small_low};
}

}  // namespace fovea::data
