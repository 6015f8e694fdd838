// P4, windowed attention: equal to its definition, linear in the number of tokens, and small in memory.
#include <torch/torch.h>

#include <cmath>

#include "fovea/kernels/attention_cost.h"
#include "fovea/models/swin_unetr.h"
#include "fovea/ops/window_attention.h"
#include "fovea/recipes/check.h"
#include "fovea/recipes/window_experiments.h"

namespace fovea::recipes {

namespace {
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

}  // namespace

CheckResult check_window_attention(const CheckOptions& options) {
  CheckResult result;
  const kernels::AttentionLayer voxels{{128, 128, 128}, {8, 8, 8}, 48, 3}, patches{{16, 16, 16}, {8, 8, 8}, 48, 3};
  const auto pairs = [](kernels::AttentionReach reach, const kernels::AttentionLayer& layer) { return double(kernels::attention_cost(reach, layer).pairs); };
  const double global_pairs = pairs(kernels::AttentionReach::kGlobal, voxels), window_pairs = pairs(kernels::AttentionReach::kWindows, voxels);
  const auto counts = kernels::window_counts({128, 128, 128}, {8, 8, 8});
  result.equal("128^3 voxel tokens, window 8: windows", double(counts[0] * counts[1] * counts[2]), 4096);
  result.equal("128^3 voxel tokens, window 8: pairs", window_pairs, 1073741824);
  result.equal("128^3 voxel tokens, window 8: global pairs over windowed pairs", global_pairs / window_pairs, 4096);
  result.equal("4096 patch tokens, window 8: the same ratio", pairs(kernels::AttentionReach::kGlobal, patches) / pairs(kernels::AttentionReach::kWindows, patches), 8);

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
    const double windowed = windowed_time_exponent(options.full), global = global_time_exponent(options.full);
    result.at_most("time exponent of windowed attention, distance from 1 (42^3 to 84^3 tokens)", std::abs(windowed - 1), 0.05);
    result.at_most("time exponent of global attention, distance from 2 (2k to 16k tokens)", std::abs(global - 2), 0.1);
  }
  const int64_t edge = options.full ? 128 : 64;
  const Workspace space = measure_workspace(edge, /*window=*/7, /*heads=*/3, /*channels=*/16);
  if (space.measured)
    result.at_most("workspace at " + std::to_string(edge) + "^3 x 48 channels, share of the materialised logits", space.extra_bytes / space.plain_bytes, 0.01);
  else
    result.notes.push_back("workspace not measured: this system does not let a process reset its peak memory");
  return result;
}

}  // namespace fovea::recipes
