// P5, shifted windows: the regions, how far information travels through a stack, and that nothing wraps round the border.
#include <torch/torch.h>

#include <algorithm>

#include "fovea/kernels/window_attention.h"
#include "fovea/ops/window_attention.h"
#include "fovea/recipes/check.h"

namespace fovea::recipes {

namespace {
using kernels::Triple;

// Region of a rolled position by the published construction: three slices an axis, numbered in order.
int slice_of(int64_t position, int64_t padded, int64_t window, int64_t shift) {
  if (shift == 0) return 0;
  return position < padded - window ? 0 : position < padded - shift ? 1 : 2;
}

struct PairCounts {
  int64_t pairs = 0, masked = 0, windows = 0, windows_with_mask = 0, disagreeing = 0;
};

// Counts masked pairs over all windows of a grid and compares each with the slice construction.
PairCounts count_pairs(const Triple& grid, const Triple& window, const Triple& shift) {
  const Triple counts = kernels::window_counts(grid, window);
  const int64_t n = window[0] * window[1] * window[2];
  std::vector<int32_t> token(n), region(n), slice(n);
  PairCounts c;
  for (int64_t z = 0; z < counts[0]; ++z)
    for (int64_t y = 0; y < counts[1]; ++y)
      for (int64_t x = 0; x < counts[2]; ++x) {
        kernels::window_tokens(grid, window, shift, {z, y, x}, token.data(), region.data());
        for (int64_t i = 0; i < n; ++i) {
          const Triple inside{i / (window[1] * window[2]), i / window[2] % window[1], i % window[2]}, index{z, y, x};
          slice[i] = 0;
          for (int a = 0; a < 3; ++a)
            slice[i] = slice[i] * 3 + slice_of(index[a] * window[a] + inside[a], counts[a] * window[a], window[a], shift[a]);
        }
        int64_t masked = 0;
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j < n; ++j) {
            masked += region[i] != region[j];
            c.disagreeing += (region[i] != region[j]) != (slice[i] != slice[j]);
          }
        c.pairs += n * n, c.masked += masked, ++c.windows, c.windows_with_mask += masked > 0;
      }
  return c;
}

// reach[j] after `layers` alternating layers for token i of an axis: the boolean prediction.
std::vector<bool> predicted_reach(int64_t n, int64_t w, int64_t layers, int64_t i) {
  std::vector<bool> reach(n, false);
  reach[i] = true;
  for (int64_t layer = layers - 1; layer >= 0; --layer) {  // from the output back to the input
    const int64_t shift = layer % 2 ? w / 2 : 0;
    std::vector<bool> next(n, false);
    auto cell = [&](int64_t t) {
      const int64_t position = (t - shift + n) % n;
      return position / w * 3 + slice_of(position, n, w, shift);
    };
    for (int64_t t = 0; t < n; ++t)
      if (reach[t])
        for (int64_t s = 0; s < n; ++s)
          if (cell(s) == cell(t)) next[s] = true;
    reach = next;
  }
  return reach;
}

// A stack of `layers` attention layers with random projections, alternating W-MSA and SW-MSA, double precision.
torch::Tensor random_stack(torch::Tensor x, const Triple& window, const Triple& shift, int64_t layers, at::Generator generator) {
  const int64_t E = x.size(-1);
  for (int64_t layer = 0; layer < layers; ++layer) {
    const auto weight = torch::randn({E, 3 * E}, generator, x.options().requires_grad(false)) / std::sqrt(double(E));
    // Tokens of unit size keep the softmax soft: a saturated one has true zeros among its derivatives.
    const auto unit = x / (x.square().mean(-1, /*keepdim=*/true) + 1e-6).sqrt();
    const auto qkv = torch::matmul(unit, weight).reshape({x.size(0), x.size(1), x.size(2), x.size(3), 3, 1, E});
    const Triple none{0, 0, 0};
    const Triple& s = layer % 2 ? shift : none;
    x = x + std::get<0>(ops::window_attention(qkv, {}, {window[0], window[1], window[2]}, {s[0], s[1], s[2]}));
  }
  return x;
}

// Inputs with a non-zero derivative of one output token, flattened over the grid.
torch::Tensor gradient_support(const Triple& grid, const Triple& window, int64_t layers, const Triple& token, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  auto x = torch::randn({1, grid[0], grid[1], grid[2], 8}, generator, torch::kFloat64).requires_grad_();
  Triple shift;
  for (int a = 0; a < 3; ++a) shift[a] = grid[a] > window[a] ? window[a] / 2 : 0;
  const auto out = random_stack(x, window, shift, layers, generator);
  out.index({0, token[0], token[1], token[2]}).sum().backward();
  return (x.grad() != 0).any(-1)[0];
}

// Tokens of an axis whose whole axis is reached after `layers` layers.
std::pair<bool, bool> all_or_any_reach(int64_t n, int64_t w, int64_t layers) {
  bool all = true, any = false;
  for (int64_t i = 0; i < n; ++i) {
    const auto reach = predicted_reach(n, w, layers, i);
    const bool whole = std::all_of(reach.begin(), reach.end(), [](bool r) { return r; });
    all &= whole, any |= whole;
  }
  return {all, any};
}
}  // namespace

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
    int64_t first_all = 0, first_any = 0;
    for (int64_t layers = 1; layers <= 2 * n / w && !first_all; ++layers) {
      const auto [all, any] = all_or_any_reach(n, w, layers);
      if (any && !first_any) first_any = layers;
      if (all) first_all = layers;
    }
    const std::string name = "axis " + std::to_string(n) + ", window " + std::to_string(w);
    result.equal(name + ": layers until the worst token sees it all", double(first_all), double(worst));
    result.equal(name + ": layers until the best token does", double(first_any), double(best));
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
  return result;
}

}  // namespace fovea::recipes
