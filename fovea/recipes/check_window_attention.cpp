// P4, windowed attention: equal to its definition, linear in the number of tokens, and small in memory.
#include <torch/torch.h>

#include <chrono>
#include <cmath>
#include <functional>

#include "fovea/core/process_memory.h"
#include "fovea/kernels/window_attention.h"
#include "fovea/models/swin_unetr.h"
#include "fovea/ops/attention.h"
#include "fovea/ops/window_attention.h"
#include "fovea/recipes/check.h"

namespace fovea::recipes {

namespace {
// Slope of log(time) over log(tokens), best of several interleaved runs each.
double time_exponent(const std::vector<int64_t>& sizes, int rounds, const std::function<std::function<void()>(int64_t)>& prepare, const std::function<double(int64_t)>& tokens) {
  std::vector<double> best(sizes.size(), INFINITY);
  std::vector<std::function<void()>> runs;
  for (const int64_t size : sizes) runs.push_back(prepare(size));
  for (int round = 0; round < rounds; ++round)
    for (size_t s = 0; s < sizes.size(); ++s) {
      const auto start = std::chrono::steady_clock::now();
      runs[s]();
      best[s] = std::min(best[s], std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
  double mx = 0, my = 0, xx = 0, xy = 0;
  for (size_t s = 0; s < sizes.size(); ++s) mx += std::log(tokens(sizes[s])) / sizes.size(), my += std::log(best[s]) / sizes.size();
  for (size_t s = 0; s < sizes.size(); ++s) {
    const double dx = std::log(tokens(sizes[s])) - mx;
    xx += dx * dx, xy += dx * (std::log(best[s]) - my);
  }
  return xy / xx;
}

void compare_with_definition(CheckResult& result, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  // Drawn as float32, so that both precisions see the same numbers.
  const auto qkv = torch::randn({1, 13, 14, 15, 3, 3, 16}, generator, torch::kFloat32);
  const auto table = torch::randn({13 * 13 * 13, 3}, generator, torch::kFloat32), pad = torch::randn({3, 3, 16}, generator, torch::kFloat32);
  const auto probe = torch::randn({1, 13, 14, 15, 48}, generator, torch::kFloat32);
  for (const bool shifted : {false, true}) {
    const int64_t s = shifted ? 3 : 0;
    auto run = [&](torch::ScalarType type) {
      std::vector<torch::Tensor> inputs;
      for (const auto& t : {qkv, table, pad}) inputs.push_back(t.to(type).detach().requires_grad_());
      const auto out = std::get<0>(ops::window_attention(inputs[0], inputs[1], {7, 7, 7}, {s, s, s}, {}, inputs[2], -100.0));
      auto grads = torch::autograd::grad({(out * probe.to(type)).sum()}, inputs);
      grads.insert(grads.begin(), out);
      for (auto& g : grads) g = g.detach().to(torch::kFloat64);
      return grads;
    };
    const auto exact = run(torch::kFloat64), fast = run(torch::kFloat32);
    double gradient = 0;
    for (size_t i = 1; i < exact.size(); ++i)
      gradient = std::max(gradient, ((fast[i] - exact[i]).abs().max() / torch::clamp_min(exact[i].abs().max(), 1)).item<double>());
    const std::string kind = shifted ? "shifted" : "plain";
    result.at_most(kind + " windows, float32 against the double definition, forward", (fast[0] - exact[0]).abs().max().item<double>(), 2e-6);
    result.at_most(kind + " windows, the same, gradients (qkv, bias table, padding token)", gradient, 5e-6);
  }
}

void measure_workspace(CheckResult& result, int64_t edge) {
  torch::NoGradGuard no_grad;
  const auto qkv = torch::zeros({1, edge, edge, edge, 3, 3, 16});
  const auto table = torch::zeros({13 * 13 * 13, 3});
  ops::window_attention(qkv.slice(1, 0, 14).slice(2, 0, 14).slice(3, 0, 14), table, {7, 7, 7}, {3, 3, 3});  // touches code and thread pool
  if (!reset_peak_resident()) {
    result.notes.push_back("workspace not measured: this system does not let a process reset its peak memory");
    return;
  }
  const double before = double(resident_bytes());
  const auto [out, lse] = ops::window_attention(qkv, table, {7, 7, 7}, {3, 3, 3});
  const double extra = double(peak_resident_bytes()) - before - double(out.nbytes()) - double(lse.nbytes());
  const auto counts = kernels::window_counts({edge, edge, edge}, {7, 7, 7});
  const double logits = double(counts[0] * counts[1] * counts[2]) * 343 * 343 * 3 * 4;
  result.at_most("workspace at " + std::to_string(edge) + "^3 x 48 channels, share of the materialised logits", std::max(extra, 0.0) / logits, 0.01);
}
}  // namespace

CheckResult check_window_attention(const CheckOptions& options) {
  CheckResult result;
  const auto counts = kernels::window_counts({128, 128, 128}, {8, 8, 8});
  const double windows = double(counts[0] * counts[1] * counts[2]), pairs = windows * 512 * 512, tokens = 128.0 * 128 * 128;
  result.equal("128^3 voxel tokens, window 8: windows", windows, 4096);
  result.equal("128^3 voxel tokens, window 8: pairs", pairs, 1073741824);
  result.equal("128^3 voxel tokens, window 8: global pairs over windowed pairs", tokens * tokens / pairs, 4096);
  result.equal("4096 patch tokens, window 8: the same ratio", 4096.0 * 4096 / (8.0 * 512 * 512), 8);

  compare_with_definition(result, options.seed);

  struct Count {
    const char* name;
    int64_t in, out, feature;
    bool v2;
    double parameters;
  };
  for (const Count& c : {Count{"1->14, feature 48", 1, 14, 48, false, 62187296}, Count{"1->14, feature 24", 1, 14, 24, false, 15703304},
                         Count{"1->14, feature 12", 1, 14, 12, false, 4078220}, Count{"4->3, feature 48", 4, 3, 48, false, 62191941},
                         Count{"1->14, feature 48, v2", 1, 14, 48, true, 72762656}}) {
    models::SwinUnetrConfig config;
    config.in_channels = c.in, config.out_channels = c.out, config.feature_size = c.feature, config.use_v2 = c.v2;
    models::SwinUnetr network(config);
    int64_t n = 0;
    for (const auto& p : network->parameters()) n += p.numel();
    result.equal(std::string("SwinUNETR parameters, ") + c.name, double(n), c.parameters);
  }

  {
    torch::NoGradGuard no_grad;
    const int threads = torch::get_num_threads();
    torch::set_num_threads(1);
    const int rounds = options.full ? 9 : 4;
    auto cube = [](int64_t edge) { return double(edge) * edge * edge; };
    // From sizes on that no cache holds: below them the curve is bent by the caches, not by the algorithm.
    const auto table = torch::zeros({13 * 13 * 13, 3});
    const double windowed = time_exponent({42, 56, 70, 84}, rounds, [&](int64_t edge) {
      return [qkv = torch::zeros({1, edge, edge, edge, 3, 3, 16}), table] { ops::window_attention(qkv, table, {7, 7, 7}, {0, 0, 0}); };
    }, cube);
    const double global = time_exponent({2048, 4096, 8192, 16384}, options.full ? 5 : 2, [](int64_t n) {
      return [x = torch::zeros({1, 1, n, 16})] { ops::attention(x, x, x); };
    }, [](int64_t n) { return double(n); });
    torch::set_num_threads(threads);
    result.at_most("time exponent of windowed attention, distance from 1 (42^3 to 84^3 tokens)", std::abs(windowed - 1), 0.05);
    result.at_most("time exponent of global attention, distance from 2 (2k to 16k tokens)", std::abs(global - 2), 0.1);
  }
  measure_workspace(result, options.full ? 128 : 64);
  return result;
}

}  // namespace fovea::recipes
