#include "fovea/kernels/cpu/window_plan.h"

#include <algorithm>
#include <map>

namespace fovea::kernels::cpu {

WindowPlan::WindowPlan(const Triple& grid, const Triple& window, const Triple& shift, bool split_regions,
                       bool padding_takes_part)
    : n(window[0] * window[1] * window[2]) {
  const Triple counts = window_counts(grid, window);
  token.resize(counts[0] * counts[1] * counts[2] * n);
  std::vector<int32_t> region(n), pattern(n);
  std::map<std::vector<int32_t>, size_t> class_of;
  int32_t index = 0;
  for (int64_t z = 0; z < counts[0]; ++z)
    for (int64_t y = 0; y < counts[1]; ++y)
      for (int64_t x = 0; x < counts[2]; ++x, ++index) {
        int32_t* tokens = token.data() + index * n;
        window_tokens(grid, window, shift, {z, y, x}, tokens, region.data());
        // Region ids relative to the first one: interior windows look alike wherever they are.
        for (int64_t j = 0; j < n; ++j) pattern[j] = (region[j] - region[0]) * 2 + (tokens[j] < 0);
        const auto [found, is_new] = class_of.try_emplace(pattern, classes.size());
        if (is_new) {
          WindowClass c;
          c.region = region;
          std::vector<int32_t> ids = split_regions ? region : std::vector<int32_t>{region[0]};
          std::sort(ids.begin(), ids.end());
          ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
          for (int32_t id : ids) {
            WindowGroup g;
            for (int32_t j = 0; j < n; ++j)
              if ((!split_regions || region[j] == id) && tokens[j] >= 0) g.position.push_back(j);
            g.queries = g.keys();
            if (g.queries == 0) continue;
            for (int32_t j = 0; j < n && padding_takes_part; ++j)
              if ((!split_regions || region[j] == id) && tokens[j] < 0) g.position.push_back(j);
            c.groups.push_back(std::move(g));
          }
          classes.push_back(std::move(c));
        }
        classes[found->second].windows.push_back(index);
      }
}

std::vector<WindowChunk> WindowPlan::chunks(int64_t batch, int64_t pairs) const {
  std::vector<WindowChunk> all;
  for (size_t c = 0; c < classes.size(); ++c) {
    const int64_t total = batch * static_cast<int64_t>(classes[c].windows.size());
    for (int64_t begin = 0; begin < total; begin += pairs)
      all.push_back({static_cast<int32_t>(c), begin, std::min(begin + pairs, total)});
  }
  return all;
}

}  // namespace fovea::kernels::cpu
