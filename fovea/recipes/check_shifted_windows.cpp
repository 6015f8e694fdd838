// P5, shifted windows: the regions, how far information travels through a stack, and that nothing wraps round the border.
#include <torch/torch.h>

#include <algorithm>

#include "fovea/ops/window_attention.h"
#include "fovea/recipes/check.h"
#include "fovea/recipes/two_nodules.h"
#include "fovea/recipes/window_experiments.h"

namespace fovea::recipes {

using kernels::Triple;

CheckResult check_shifted_windows(const CheckOptions& options) {
  CheckResult result;
  const auto counts = count_pairs({16, 16, 16}, {4, 4, 4}, {2, 2, 2});
  result.equal("pairs whose mask differs from the slice construction", double(counts.disagreeing), 0);
  const auto odd = count_pairs({13, 9, 17}, {4, 3, 5}, {2, 1, 2});
  result.equal("the same on a grid that no window divides", double(odd.disagreeing), 0);
  result.equal("masked pairs, 4 windows an axis (%, rounded to 0.1)", std::round(1000.0 * counts.masked / counts.pairs) / 10, 33.0);
  result.equal("windows of 64 that need a mask", double(counts.windows_with_mask), 37);

  // Receptive field: the gradient support of a random stack against the boolean prediction, every depth.
  int64_t differing = 0;
  for (int64_t layers = 1; layers <= 7; ++layers)
    for (const Triple token : {Triple{0, 0, 0}, Triple{7, 8, 9}, Triple{15, 0, 6}}) {
      const auto support = gradient_support({16, 16, 16}, {4, 4, 4}, layers, token, options.seed + layers);
      const auto z = predicted_reach(16, 4, layers, token[0]), y = predicted_reach(16, 4, layers, token[1]), x = predicted_reach(16, 4, layers, token[2]);
      const auto got = support.accessor<bool, 3>();
      for (int64_t a = 0; a < 16; ++a)
        for (int64_t b = 0; b < 16; ++b)
          for (int64_t c = 0; c < 16; ++c) differing += got[a][b][c] != (z[a] && y[b] && x[c]);
    }
  result.equal("tokens whose gradient support differs from the prediction, 16^3, window 4, depth 1-7", double(differing), 0);
  const std::vector<std::array<int64_t, 4>> table = {{16, 4, 7, 4}, {64, 8, 15, 8}, {128, 8, 31, 16}};
  for (const auto& [n, w, worst, best] : table) {
    const AxisDepth depth = layers_until_whole_axis(n, w);
    const std::string name = "axis " + std::to_string(n) + ", window " + std::to_string(w);
    result.equal(name + ": layers until the worst token sees it all", double(depth.worst), double(worst));
    result.equal(name + ": layers until the best token does", double(depth.best), double(best));
    if (n == 128 && !options.full) continue;
    int64_t wrong = 0;
    for (const int64_t token : {int64_t{0}, n / 2 - 1, n - 1})
      for (const int64_t layers : {best - 1, best, worst - 1, worst}) {
        const auto support = gradient_support({1, 1, n}, {1, 1, w}, layers, {0, 0, token}, options.seed + 100 + layers);
        const auto reach = predicted_reach(n, w, layers, token);
        for (int64_t x = 0; x < n; ++x) wrong += support[0][0][x].item<bool>() != reach[x];
      }
    result.equal(name + ": tokens whose gradient support differs", double(wrong), 0);
  }

  // No leak over the volume border: the first face is perturbed, the opposite face must keep its bits.
  {
    torch::NoGradGuard no_grad;
    auto generator = at::detail::createCPUGenerator(options.seed + 1);
    auto qkv = torch::randn({1, 12, 12, 12, 3, 2, 16}, generator, torch::kFloat32);
    const auto before = std::get<0>(ops::window_attention(qkv, {}, {4, 4, 4}, {2, 2, 2}));
    qkv.index_put_({0, 0}, 1e30);
    const auto after = std::get<0>(ops::window_attention(qkv, {}, {4, 4, 4}, {2, 2, 2}));
    const auto changed = (before.slice(1, 11, 12) != after.slice(1, 11, 12)).sum().item<int64_t>();
    const auto near = (before.slice(1, 1, 2) != after.slice(1, 1, 2)).sum().item<int64_t>();
    result.equal("values of the far face changed by a perturbed near face", double(changed), 0);
    result.at_least("values beside the perturbed face that changed", double(near), 1);
  }
  check_two_nodules(result, options, {NoduleNetwork::kShiftedWindows, NoduleNetwork::kWindows});
  return result;
}

}  // namespace fovea::recipes
