// Neighbouring grey-tone difference: how far a voxel's level is from the mean of its neighbours.
#include <cmath>

#include "fovea/data/radiomics_region.h"

namespace fovea::data {

std::vector<double> ngtdm_features(const LevelGrid& grid, const RadiomicsOptions& options) {
  const size_t n = grid.levels.size();
  std::vector<double> p(n, 0), s(n, 0);  // share of voxels of a level, and the sum of their differences
  std::vector<int64_t> offsets;
  for (const Step& step : directions(options.distances, options.plane_axis)) {
    const int64_t offset = step[0] * grid.stride[0] + step[1] * grid.stride[1] + step[2];
    offsets.push_back(offset), offsets.push_back(-offset);
  }
  for (const int64_t at : grid.voxels) {
    double sum = 0, count = 0;
    for (const int64_t offset : offsets)
      if (const int32_t there = grid.index[at + offset]) sum += grid.levels[there - 1], ++count;
    const auto level = size_t(grid.index[at] - 1);
    p[level] += 1;
    if (count > 0) s[level] += std::abs(grid.levels[level] - sum / count);
  }
  const double voxels = double(grid.voxels.size());
  double sum_s = 0, sum_ps = 0;
  for (size_t i = 0; i < n; ++i) p[i] /= voxels, sum_s += s[i], sum_ps += p[i] * s[i];

  double spread = 0, busy = 0, complexity = 0, strength = 0;
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) {
      const double d = grid.levels[i] - grid.levels[j], both = p[i] + p[j];
      spread += p[i] * p[j] * d * d;
      busy += std::abs(grid.levels[i] * p[i] - grid.levels[j] * p[j]);
      complexity += std::abs(d) * (p[i] * s[i] + p[j] * s[j]) / both;
      strength += both * d * d;
    }
  return {busy != 0 ? sum_ps / busy : 0, sum_ps != 0 ? 1 / sum_ps : 1e6, complexity / voxels,
          n > 1 ? spread * sum_s / voxels / double(n * (n - 1)) : 0, sum_s != 0 ? strength / sum_s : 0};
}

}  // namespace fovea::data
