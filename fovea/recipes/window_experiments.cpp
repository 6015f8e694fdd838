#include "fovea/recipes/window_experiments.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>

#include "fovea/core/process_memory.h"
#include "fovea/kernels/attention_cost.h"
#include "fovea/ops/attention.h"
#include "fovea/ops/window_attention.h"
#include "fovea/recipes/log_slope.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

using kernels::Triple;

namespace {
// Region of a rolled position by the published construction: three slices an axis, numbered in order.
int slice_of(int64_t position, int64_t padded, int64_t window, int64_t shift) {
  if (shift == 0) return 0;
  return position < padded - window ? 0 : position < padded - shift ? 1 : 2;
}
}  // namespace

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
            slice[i] =
                slice[i] * 3 + slice_of(index[a] * window[a] + inside[a], counts[a] * window[a], window[a], shift[a]);
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

namespace {
enum class Ends { kApart, kJoined };  // what the roll does with the two ends of an axis

// Tokens of an axis that share a window and a region with a marked one.
std::vector<bool> spread(const std::vector<bool>& marked, int64_t window, int64_t shift, Ends ends = Ends::kApart) {
  const int64_t n = int64_t(marked.size());
  const auto cell = [&](int64_t t) {
    const int64_t position = (t - shift + n) % n;
    return position / window * 3 + (ends == Ends::kApart ? slice_of(position, n, window, shift) : 0);
  };
  std::vector<bool> open(3 * ((n + window - 1) / window), false), reached(n);
  for (int64_t t = 0; t < n; ++t)
    if (marked[t]) open[cell(t)] = true;
  for (int64_t t = 0; t < n; ++t) reached[t] = open[cell(t)];
  return reached;
}

// From the output back to the input.
std::vector<bool> spread_through(std::vector<bool> marked, int64_t window, int64_t layers, Ends ends = Ends::kApart) {
  for (int64_t layer = layers - 1; layer >= 0; --layer)
    marked = spread(marked, window, layer % 2 ? window / 2 : 0, ends);
  return marked;
}

bool all_of(const std::vector<bool>& marked) {
  return std::all_of(marked.begin(), marked.end(), [](bool m) { return m; });
}
}  // namespace

std::vector<bool> predicted_reach(int64_t n, int64_t window, int64_t layers, int64_t i) {
  std::vector<bool> marked(n, false);
  marked[i] = true;
  return spread_through(marked, window, layers);
}

AxisDepth layers_until_whole_axis(int64_t n, int64_t window) {
  AxisDepth depth;
  for (int64_t layers = 1; layers <= 2 * n / window && !depth.worst; ++layers) {
    bool all = true, any = false;
    for (int64_t i = 0; i < n; ++i) {
      const bool whole = all_of(predicted_reach(n, window, layers, i));
      all &= whole, any |= whole;
    }
    if (any && !depth.best) depth.best = layers;
    if (all) depth.worst = layers;
  }
  return depth;
}

int64_t layers_until_whole_axis_on_torus(int64_t n, int64_t window) {
  for (int64_t layers = 1;; ++layers) {
    std::vector<bool> marked(n, false);
    marked[0] = true;
    if (all_of(spread_through(marked, window, layers, Ends::kJoined))) return layers;
  }
}

int64_t layers_until_whole_axis_with_merging(int64_t n, int64_t window) {
  int64_t layers = 0;
  for (int64_t length = n;; length /= 2)
    for (int64_t here = 1; here <= 2; ++here) {
      ++layers;
      bool all = true;
      for (int64_t i = 0; i < length && all; ++i) {
        std::vector<bool> seen = predicted_reach(length, std::min(window, length), here, i);
        for (int64_t finer = 2 * length; finer <= n; finer *= 2) {  // a merged token is two of the finer grid
          std::vector<bool> parts(finer);
          for (int64_t t = 0; t < finer; ++t) parts[t] = seen[t / 2];
          seen = spread_through(parts, window, 2);
        }
        all = all_of(seen);
      }
      if (all) return layers;
    }
}

namespace {
// A stack of `layers` attention layers with random projections, alternating W-MSA and SW-MSA, double precision.
torch::Tensor random_stack(torch::Tensor x, const Triple& window, const Triple& shift, int64_t layers,
                           at::Generator generator) {
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
}  // namespace

torch::Tensor gradient_support(const Triple& grid, const Triple& window, int64_t layers, const Triple& token,
                               uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  auto x = torch::randn({1, grid[0], grid[1], grid[2], 8}, generator, torch::kFloat64).requires_grad_();
  Triple shift;
  for (int a = 0; a < 3; ++a) shift[a] = grid[a] > window[a] ? window[a] / 2 : 0;
  const auto out = random_stack(x, window, shift, layers, generator);
  out.index({0, token[0], token[1], token[2]}).sum().backward();
  return (x.grad() != 0).any(-1)[0];
}

namespace {
// Slope of log(time) over log(tokens), best of several interleaved runs each.
double time_exponent(const std::vector<int64_t>& sizes, int rounds,
                     const std::function<std::function<void()>(int64_t)>& prepare,
                     const std::function<double(int64_t)>& tokens) {
  std::vector<double> best(sizes.size(), INFINITY);
  std::vector<std::function<void()>> runs;
  for (const int64_t size : sizes) runs.push_back(prepare(size));
  for (int round = 0; round < rounds; ++round)
    for (size_t s = 0; s < sizes.size(); ++s) {
      const auto start = std::chrono::steady_clock::now();
      runs[s]();
      best[s] = std::min(best[s], std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
  std::vector<double> n;
  for (const int64_t size : sizes) n.push_back(tokens(size));
  return log_slope(n, best);
}

}  // namespace

double windowed_time_exponent(bool full) {
  torch::NoGradGuard no_grad;
  const OneThread one_thread;
  const auto table = torch::zeros({13 * 13 * 13, 3});
  // From sizes on that no cache holds: below them the curve is bent by the caches, not by the algorithm.
  return time_exponent(
      {42, 56, 70, 84}, full ? 9 : 4,
      [&](int64_t edge) {
        return [qkv = torch::zeros({1, edge, edge, edge, 3, 3, 16}), table] {
          ops::window_attention(qkv, table, {7, 7, 7}, {0, 0, 0});
        };
      },
      [](int64_t edge) { return double(edge) * edge * edge; });
}

double global_time_exponent(bool full) {
  torch::NoGradGuard no_grad;
  const OneThread one_thread;
  return time_exponent(
      {2048, 4096, 8192, 16384}, full ? 5 : 2,
      [](int64_t n) {
        return [x = torch::zeros({1, 1, n, 16})] { ops::attention(x, x, x); };
      },
      [](int64_t n) { return double(n); });
}

Workspace measure_workspace(int64_t edge, int64_t window, int64_t heads, int64_t channels) {
  torch::NoGradGuard no_grad;
  const auto qkv = torch::zeros({1, edge, edge, edge, 3, heads, channels});
  const auto table = torch::zeros({(2 * window - 1) * (2 * window - 1) * (2 * window - 1), heads});
  const Triple w{window, window, window}, shift{window / 2, window / 2, window / 2};
  const int64_t little = 2 * window;  // touches code and thread pool
  ops::window_attention(qkv.slice(1, 0, little).slice(2, 0, little).slice(3, 0, little), table, w, shift);
  Workspace space;
  release_free_memory();  // what the heap keeps would hide what the op takes
  space.measured = reset_peak_resident();
  const double before = double(resident_bytes());
  const auto [out, lse] = ops::window_attention(qkv, table, w, shift);
  space.extra_bytes =
      std::max(0.0, double(peak_resident_bytes()) - before - double(out.nbytes()) - double(lse.nbytes()));
  space.plain_bytes =
      kernels::attention_cost(kernels::AttentionReach::kWindows, {{edge, edge, edge}, w, heads * channels, heads})
          .plain_bytes;
  return space;
}

}  // namespace fovea::recipes
