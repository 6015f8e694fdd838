// C8 to C14, C16, C22, C33, C44: counts, work and memory, from the planner and the layers.
#include <torch/torch.h>

#include <cmath>

#include "fovea/core/process_memory.h"
#include "fovea/data/phantom.h"
#include "fovea/io/image.h"
#include "fovea/kernels/attention_cost.h"
#include "fovea/recipes/claims.h"
#include "fovea/recipes/patch_experiments.h"
#include "fovea/recipes/window_experiments.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using kernels::attention_cost;
using kernels::AttentionCost;
using kernels::AttentionLayer;
using kernels::AttentionReach;
using report::printed;

constexpr const char* kPlanner = "the planner of fovea cost";

AttentionLayer cube(int64_t edge, int64_t window = 8, int64_t width = 48, int64_t heads = 3) {
  return {{edge, edge, edge}, {window, window, window}, width, heads};
}

long long whole(int64_t n) { return static_cast<long long>(n); }

ClaimResult voxels(const ClaimOptions& options) {
  ClaimResult r;
  Geometry g;
  const bool given = !options.image.empty();
  if (given) {
    g = io::inspect(options.image).geometry;
  } else {
    data::PhantomConfig config;
    config.shape = {96, 192, 192}, config.seed = options.seed;
    g = data::make_phantom(config, 0).image.geometry;
  }
  const double n = double(g.voxels());
  r.figures = {{"voxels", n}};
  r.verdict = n < 1e6 || n > 2e8 ? Verdict::kFalse : given ? Verdict::kHolds : Verdict::kHoldsIf;
  r.condition = "the scan is as large as this phantom: name one with --image";
  r.computed = printed("%lldx%lldx%lld = %lld voxels", whole(g.shape[2]), whole(g.shape[1]), whole(g.shape[0]),
                       whole(g.voxels()));
  r.inputs = given ? options.image.filename().string() : "a phantom, seed " + std::to_string(options.seed),
  r.with = "the reader of its header";
  return r;
}

ClaimResult tokens(int64_t patch, int64_t claimed) {
  const int64_t n = tokens_of(128, patch);
  ClaimResult r;
  r.figures = {{"tokens", double(n)}};
  r.verdict = n == claimed ? Verdict::kExact : Verdict::kFalse;
  r.computed = printed("%lld tokens of %lld voxels", whole(n), whole(patch * patch * patch));
  r.inputs = "128x128x128 voxels", r.with = "nn::PatchEmbed, run";
  return r;
}

ClaimResult squared(const ClaimOptions& options) {
  const AttentionCost patches = attention_cost(AttentionReach::kGlobal, cube(16, 8, 64, 1)),
                      each = attention_cost(AttentionReach::kGlobal, cube(128, 8, 64, 1));
  ClaimResult r;
  r.figures = {{"pairs_4096", double(patches.pairs)},
               {"bytes_4096", patches.plain_bytes},
               {"pairs_voxels", double(each.pairs)},
               {"bytes_voxels", each.plain_bytes}};
  const bool square = patches.pairs == patches.tokens * patches.tokens && each.pairs == each.tokens * each.tokens;
  r.verdict = square ? Verdict::kExact : Verdict::kFalse;
  r.computed = printed("%lld (%s a head) for %lld tokens, %.4g (%s a head) for %lld", whole(patches.pairs),
                       format_bytes(patches.plain_bytes).c_str(), whole(patches.tokens), double(each.pairs),
                       format_bytes(each.plain_bytes).c_str(), whole(each.tokens));
  r.inputs = "128^3 voxels, patches of 8^3 and 1", r.with = kPlanner;
  if (options.full) {
    const double exponent = global_time_exponent(/*full=*/true);
    r.figures.emplace_back("time_exponent", exponent);
    r.computed += printed("; time exponent %.2f", exponent), r.with += ", fovea::attention timed on 2k to 16k tokens";
    if (std::abs(exponent - 2) > 0.1) r.verdict = Verdict::kHolds;
  }
  return r;
}

ClaimResult infeasible(const ClaimOptions&) {
  const AttentionLayer layer = cube(128, 8, 64, 1);
  const AttentionCost cost = attention_cost(AttentionReach::kGlobal, layer);
  const kernels::Machine machine = kernels::this_machine(torch::get_num_threads());
  const double time_s = kernels::fused_seconds(cost, layer, machine);
  ClaimResult r;
  r.figures = {{"plain_bytes", cost.plain_bytes},
               {"memory_bytes", machine.memory_bytes},
               {"fused_bytes", cost.tensor_bytes + cost.lse_bytes},
               {"fused_seconds", time_s},
               {"peak_gflops", machine.peaks.fma_gflops * machine.threads}};
  r.verdict = cost.plain_bytes > machine.memory_bytes ? Verdict::kHolds : Verdict::kFalse;
  r.computed =
      printed("%s of scores a head, this machine has %s; not stored: %s, and %s a head at best",
              format_bytes(cost.plain_bytes).c_str(), format_bytes(machine.memory_bytes).c_str(),
              format_bytes(cost.tensor_bytes + cost.lse_bytes).c_str(), kernels::format_seconds(time_s).c_str());
  r.inputs = "128^3 voxel tokens, one head of 64 channels, float",
  r.with = printed("%s, peaks measured in this run on %d threads", kPlanner, machine.threads);
  return r;
}

ClaimResult windows_save(const ClaimOptions&) {
  const auto saving = [](int64_t edge) {
    const AttentionCost global = attention_cost(AttentionReach::kGlobal, cube(edge)),
                        windows = attention_cost(AttentionReach::kWindows, cube(edge));
    return std::pair(double(global.pairs) / double(windows.pairs), global.multiply_adds() / windows.multiply_adds());
  };
  const auto [voxels, with_projections] = saving(128);
  const auto [patches, patches_with_projections] = saving(16);
  ClaimResult r;
  r.figures = {{"voxels", voxels},
               {"patches", patches},
               {"with_projections", with_projections},
               {"windowed_pairs", double(attention_cost(AttentionReach::kWindows, cube(128)).pairs)}};
  r.verdict = voxels != 4096 ? Verdict::kFalse : patches == voxels ? Verdict::kExact : Verdict::kHoldsIf;
  r.condition = "the tokens are voxels";
  r.computed = printed(
      "1/%.0f of voxel tokens' products (%.4e left), 1/%.0f if the tokens are 8^3 patches; 1/%.0f with projections at "
      "width 48",
      voxels, r.figure("windowed_pairs"), patches, with_projections);
  r.inputs = "128^3 voxels, windows of 8^3 tokens", r.with = kPlanner;
  return r;
}

ClaimResult linear(const ClaimOptions& options) {
  const AttentionCost one = attention_cost(AttentionReach::kWindows, cube(64)),
                      eight = attention_cost(AttentionReach::kWindows, cube(128));
  const kernels::Triple m = kernels::window_counts({64, 64, 64}, {8, 8, 8});
  const int64_t formula = m[0] * m[1] * m[2] * 512 * 512;
  ClaimResult r;
  r.figures = {{"pairs", double(one.pairs)},
               {"formula", double(formula)},
               {"growth", double(eight.pairs) / double(one.pairs)},
               {"projection_share", one.projection_flops / (one.projection_flops + one.score_flops)}};
  r.verdict = one.pairs == formula && eight.pairs == 8 * one.pairs ? Verdict::kExact : Verdict::kFalse;
  r.computed = printed(
      "M W^6 = %lld at 64^3, %.0f times as many for 8 times the tokens; 4NE^2 projections add %.0f %% at width 48",
      whole(one.pairs), r.figure("growth"), 100 * one.projection_flops / one.score_flops);
  r.inputs = "64^3 and 128^3 tokens, windows of 8^3", r.with = kPlanner;
  if (options.full) {
    const double exponent = windowed_time_exponent(/*full=*/true);
    r.figures.emplace_back("time_exponent", exponent);
    r.computed += printed("; time exponent %.2f", exponent),
        r.with += ", fovea::window_attention timed on 42^3 to 84^3 tokens";
    if (std::abs(exponent - 1) > 0.05) r.verdict = Verdict::kHolds;
  }
  return r;
}

ClaimResult fits_memory(const ClaimOptions& options) {
  const AttentionCost one_head = attention_cost(AttentionReach::kWindows, cube(128, 8, 16, 1)),
                      block = attention_cost(AttentionReach::kWindows, cube(48, 7));
  const Workspace space = measure_workspace(options.full ? 128 : 48, /*window=*/7, /*heads=*/3, /*channels=*/16);
  ClaimResult r;
  r.figures = {{"head_bytes_128", one_head.plain_bytes}, {"block_bytes_96", block.plain_bytes}};
  std::string ours = "ours not measured: this system does not reset peak memory";
  bool small = false;
  if (space.measured) {
    r.figures.emplace_back("our_extra_bytes", space.extra_bytes),
        r.figures.emplace_back("our_plain_bytes", space.plain_bytes);
    small = space.extra_bytes < space.plain_bytes / 100;
    ours = printed("ours took %.1f MB beside its output where the plain form stores %.0f MB", 1e-6 * space.extra_bytes,
                   1e-6 * space.plain_bytes);
  }
  r.verdict = small ? Verdict::kHoldsIf : Verdict::kFalse;
  r.condition = "the scores are not stored";
  r.computed = printed("stored: %s a head at 128^3, %.0f MB a block at 96^3; %s",
                       format_bytes(one_head.plain_bytes).c_str(), 1e-6 * block.plain_bytes, ours.c_str());
  r.inputs = "windows of 8^3 on 128^3 tokens; of 7^3 on 48^3 tokens (96^3 voxels), 3 heads",
  r.with = std::string(kPlanner) + ", measured peak of fovea::window_attention";
  return r;
}

ClaimResult heads_cost_no_work(const ClaimOptions&) {
  const AttentionCost one = attention_cost(AttentionReach::kGlobal, cube(16, 8, 768, 1)),
                      twelve = attention_cost(AttentionReach::kGlobal, cube(16, 8, 768, 12));
  const double share_one = 100 * one.exponentials / one.multiply_adds(),
               share_twelve = 100 * twelve.exponentials / twelve.multiply_adds();
  ClaimResult r;
  r.figures = {{"multiply_adds_1", one.multiply_adds()},
               {"multiply_adds_12", twelve.multiply_adds()},
               {"softmax_percent_1", share_one},
               {"softmax_percent_12", share_twelve}};
  r.verdict = one.multiply_adds() == twelve.multiply_adds() && share_twelve < 1 ? Verdict::kHolds : Verdict::kFalse;
  r.computed = printed("%.4g multiply-adds with 1 and %.4g with 12 heads; softmax H N^2 is %.2f %% and %.2f %% of them",
                       one.multiply_adds(), twelve.multiply_adds(), share_one, share_twelve);
  r.inputs = "4096 tokens, width 768", r.with = kPlanner;
  return r;
}

ClaimResult cube_of_resolution(const ClaimOptions&) {
  const auto growth = [](AttentionReach reach) {
    return double(attention_cost(reach, cube(128)).pairs) / double(attention_cost(reach, cube(64)).pairs);
  };
  const double tokens = double(cube(128).tokens()) / double(cube(64).tokens()),
               global = growth(AttentionReach::kGlobal), windows = growth(AttentionReach::kWindows);
  ClaimResult r;
  r.figures = {{"voxels", tokens}, {"global", global}, {"windows", windows}};
  r.verdict = tokens == 8 ? Verdict::kExact : Verdict::kFalse;
  r.computed = printed("edge x2: voxels x%.0f, global products x%.0f, windowed x%.0f", tokens, global, windows);
  r.inputs = "64^3 against 128^3", r.with = kPlanner;
  return r;
}

ClaimResult alignment(const ClaimOptions&) {
  ClaimResult r;
  bool exact = true;
  for (const auto& [N, L] : {std::pair<int64_t, int64_t>{128, 256}, {512, 256}, {1024, 1024}}) {
    const AttentionLayer layer{{1, N, L}, {1, 1, 1}, 8, 1};
    const double ratio = double(attention_cost(AttentionReach::kGlobal, layer).pairs) /
                         double(attention_cost(AttentionReach::kAxes, layer).pairs);
    exact &= std::abs(ratio - double(N) * double(L) / double(N + L)) < 1e-9 * ratio;
    r.figures.emplace_back(printed("ratio_%lldx%lld", whole(N), whole(L)), ratio);
  }
  r.verdict = exact ? Verdict::kExact : Verdict::kFalse;
  r.computed = printed("NL/(N+L) = %.0f, %.0f, %.0f times fewer products for 128x256, 512x256, 1024x1024",
                       r.figures[0].second, r.figures[1].second, r.figures[2].second);
  r.inputs = "alignments of N sequences by L residues", r.with = kPlanner;
  return r;
}
}  // namespace

std::vector<Claim> cost_claims() {
  using enum ClaimCost;
  return {
      {"C8", "A CT has millions to tens of millions of voxels", "1e6 to 1e8", kInstant, voxels},
      {"C9", "128^3 with 8^3 patches gives 4096 tokens", "4096", kInstant,
       [](const ClaimOptions&) { return tokens(8, 4096); }},
      {"C10", "One token per voxel: over two million", "> 2 000 000", kInstant,
       [](const ClaimOptions&) { return tokens(1, 128 * 128 * 128); }},
      {"C11", "Global attention needs N^2 dot products", "N^2", kInstant, squared},
      {"C12", "... which is infeasible for voxel tokens", "infeasible", kInstant, infeasible},
      {"C13", "Windows of 8^3 on 128^3 cut the work to 1/4096", "1/4096", kInstant, windows_save},
      {"C14", "Total cost M x W^6, linear in N", "linear", kInstant, linear},
      {"C16", "Windowing makes high-resolution 3-D fit in limited GPU memory", "fits", kSeconds, fits_memory},
      {"C22", "Several heads need almost the same amount of computation", "almost equal", kInstant, heads_cost_no_work},
      {"C33", "Data grow with the cube of the resolution", "x8 for edge x2", kInstant, cube_of_resolution},
      {"C44", "Axial attention makes the N x L table tractable", "fewer", kInstant, alignment},
  };
}

}  // namespace fovea::recipes
