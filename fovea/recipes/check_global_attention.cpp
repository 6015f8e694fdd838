// P3, global attention: what it costs, counted and timed, the networks made of it, and two nodules that only it or
// shifted windows can compare.
#include <torch/torch.h>

#include <array>
#include <cmath>

#include "fovea/kernels/attention_cost.h"
#include "fovea/models/unetr.h"
#include "fovea/recipes/check.h"
#include "fovea/recipes/flop_counter.h"
#include "fovea/recipes/layer_experiments.h"
#include "fovea/recipes/two_nodules.h"
#include "fovea/recipes/window_experiments.h"

namespace fovea::recipes {

namespace {
using kernels::AttentionLayer;
using kernels::AttentionReach;

// The layer written with torch's products, its multiply-adds counted as it runs.
int64_t counted_multiply_adds(int64_t tokens, int64_t width, int64_t heads) {
  torch::NoGradGuard no_grad;
  const auto x = torch::zeros({tokens, width}), weight = torch::zeros({width, 3 * width}), out = torch::zeros({width, width});
  const FlopCounter counter;
  // n (3 h c) -> 3 h n c
  const auto qkv = torch::matmul(x, weight).view({tokens, 3, heads, width / heads}).permute({1, 2, 0, 3});
  const auto weights = torch::matmul(qkv[0], qkv[1].transpose(-1, -2)).softmax(-1);
  torch::matmul(torch::matmul(weights, qkv[2]).transpose(0, 1).reshape({tokens, width}), out);
  return counter.multiply_adds();
}

void count_parameters(CheckResult& result) {
  models::UnetrConfig config;
  config.out_channels = 14;
  models::Unetr network(config);
  int64_t trained = 0, stored = 0;
  for (const auto& p : network->parameters()) stored += p.numel(), trained += p.requires_grad() ? p.numel() : 0;
  const int64_t cross_attention = attention_parameters(config.hidden_size, config.num_heads, /*qkv_bias=*/false);
  result.equal("UNETR 1->14, 96^3: parameters", double(trained), 92784046);
  result.equal("UNETR 1->14: with the 12 unused cross attentions and norms that MONAI once stored",
               double(stored + 12 * cross_attention), 121123246);
}

void plan_voxels(CheckResult& result) {
  const AttentionLayer voxels{{128, 128, 128}, {8, 8, 8}, 48, 1}, patches{{16, 16, 16}, {8, 8, 8}, 48, 1};
  const auto all = kernels::attention_cost(AttentionReach::kGlobal, voxels),
             few = kernels::attention_cost(AttentionReach::kGlobal, patches);
  result.equal("128^3 voxels as tokens", double(all.tokens), 2097152);
  result.equal("128^3 voxels: dot products a head", double(all.pairs), std::pow(2.0, 42));
  result.equal("128^3 voxels: bytes of the scores a head (TiB)", all.plain_bytes / std::pow(2.0, 40), 16);
  result.equal("4096 patches: dot products a head", double(few.pairs), 16777216);
  result.equal("4096 patches: bytes of the scores a head (MiB)", few.plain_bytes / (1 << 20), 64);
  const auto machine = kernels::this_machine(torch::get_num_threads());
  const std::string reason = kernels::why_refused(all, voxels, machine, /*longest_s=*/1);
  const auto says = [&](const char* words) { return reason.find(words) != std::string::npos; };
  result.equal("the plan for voxels is refused and names tokens, dot products and bytes",
               says("2097152 tokens") && says("4398046511104 dot products") && says("16 TiB"), 1);
  result.equal("the plan for patches is not", kernels::why_refused(few, patches, machine, 1).empty(), 1);
}
}  // namespace

CheckResult check_global_attention(const CheckOptions& options) {
  CheckResult result;
  count_parameters(result);
  plan_voxels(result);
  for (const auto& [tokens, width, heads] : {std::array<int64_t, 3>{216, 768, 12}, {512, 96, 3}, {1000, 60, 5}}) {
    const AttentionLayer layer{{1, 1, tokens}, {1, 1, 1}, width, heads};
    const std::string name = std::to_string(tokens) + " tokens of width " + std::to_string(width);
    const int64_t counted = counted_multiply_adds(tokens, width, heads);
    result.equal(name + ": multiply-adds counted, less 4 N E^2 + 2 N^2 E",
                 double(counted - (4 * tokens * width * width + 2 * tokens * tokens * width)), 0);
    result.equal(name + ": the same less those of the planner",
                 double(counted) - kernels::attention_cost(AttentionReach::kGlobal, layer).multiply_adds(), 0);
  }
  result.at_most("time exponent of attention over the tokens, distance from 2 (2k to 16k)",
                 std::abs(global_time_exponent(options.full) - 2), 0.1);
  check_two_nodules(result, options,
                    {NoduleNetwork::kGlobal, NoduleNetwork::kShiftedWindows, NoduleNetwork::kWindows, NoduleNetwork::kSmallField});
  return result;
}

}  // namespace fovea::recipes
