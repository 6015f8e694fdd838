// C15, C17 to C20: what windows cut off and what shifting them restores.
#include <torch/torch.h>

#include <set>

#include "fovea/kernels/attention_cost.h"
#include "fovea/recipes/claims.h"
#include "fovea/recipes/two_nodules.h"
#include "fovea/recipes/window_experiments.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using kernels::Triple;
using report::printed;

long long whole(int64_t n) { return static_cast<long long>(n); }

ClaimResult isolated(const ClaimOptions& options) {
  int64_t outside = 0, missing = 0;
  for (const Triple& token : {Triple{0, 0, 0}, Triple{7, 8, 9}, Triple{15, 3, 12}}) {
    const auto support = gradient_support({16, 16, 16}, {4, 4, 4}, /*layers=*/1, token, options.seed);
    auto window = torch::zeros({16, 16, 16}, torch::kBool);
    const auto side = [&](int a) { return torch::indexing::Slice(token[a] / 4 * 4, token[a] / 4 * 4 + 4); };
    window.index_put_({side(0), side(1), side(2)}, true);
    outside += (support & ~window).sum().item<int64_t>(), missing += (window & ~support).sum().item<int64_t>();
  }
  ClaimResult r;
  r.figures = {{"reached_outside", double(outside)}, {"unreached_inside", double(missing)}};
  r.verdict = outside == 0 && missing == 0 ? Verdict::kExact : Verdict::kFalse;
  r.computed = printed("%lld tokens outside the window with a derivative that is not 0, %lld inside whose is 0",
                       whole(outside), whole(missing));
  r.inputs = "3 of 16^3 tokens, windows of 4^3, seed " + std::to_string(options.seed),
  r.with = "gradients of fovea::window_attention in double";
  return r;
}

// Tokens that share a window and a region with `token`, flat indices.
std::set<int64_t> partners(const Triple& grid, const Triple& window, const Triple& shift, int64_t token) {
  const Triple counts = kernels::window_counts(grid, window);
  const int64_t n = window[0] * window[1] * window[2];
  std::vector<int32_t> tokens(n), region(n);
  for (int64_t i = 0; i < counts[0] * counts[1] * counts[2]; ++i) {
    kernels::window_tokens(grid, window, shift, {i / (counts[1] * counts[2]), i / counts[2] % counts[1], i % counts[2]},
                           tokens.data(), region.data());
    for (int64_t a = 0; a < n; ++a) {
      if (tokens[a] != token) continue;
      std::set<int64_t> found;
      for (int64_t b = 0; b < n; ++b)
        if (region[b] == region[a] && tokens[b] >= 0) found.insert(tokens[b]);
      return found;
    }
  }
  return {};
}

ClaimResult new_neighbours(const ClaimOptions&) {
  const Triple grid{16, 16, 16}, window{8, 8, 8};
  const int64_t corner = (7 * 16 + 7) * 16 + 7;
  const auto before = partners(grid, window, {0, 0, 0}, corner), after = partners(grid, window, {4, 4, 4}, corner);
  std::vector<int64_t> met;
  for (const int64_t token : after)
    if (!before.contains(token)) met.push_back(token);
  ClaimResult r;
  r.figures = {{"partners_before", double(before.size())},
               {"partners_after", double(after.size())},
               {"met_only_after", double(met.size())}};
  r.verdict = met.empty() ? Verdict::kFalse : Verdict::kExact;
  std::string pairs;
  for (size_t i = 0; i < met.size(); i += (met.size() + 2) / 3)
    pairs += printed(" (%lld,%lld,%lld)", whole(met[i] / 256), whole(met[i] / 16 % 16), whole(met[i] % 16));
  r.computed =
      printed("corner token (7,7,7) meets %zu tokens only after the shift, such as%s", met.size(), pairs.c_str());
  r.inputs = "16^3 tokens, windows of 8^3, shift 4", r.with = "window and region ids of the kernels";
  return r;
}

ClaimResult whole_field(const ClaimOptions& options) {
  ClaimResult r;
  bool reached = true;
  std::string worst, best, merged;
  for (const auto& [n, w] : {std::pair<int64_t, int64_t>{16, 4}, {64, 8}, {128, 8}}) {
    const AxisDepth depth = layers_until_whole_axis(n, w);
    const int64_t merging = layers_until_whole_axis_with_merging(n, w);
    const std::string name = printed("%lld_%lld", whole(n), whole(w));
    r.figures.emplace_back("worst_" + name, double(depth.worst)),
        r.figures.emplace_back("best_" + name, double(depth.best));
    r.figures.emplace_back("merging_" + name, double(merging));
    const char* comma = worst.empty() ? "" : ", ";
    worst += comma + std::to_string(depth.worst), best += comma + std::to_string(depth.best),
        merged += comma + std::to_string(merging);
    reached &= depth.worst > 0;
  }
  // The boolean prediction against derivatives that are not 0, one layer before the corner token sees it all and then.
  int64_t differing = 0;
  for (const int64_t layers : {14, 15}) {
    const auto support = gradient_support({1, 1, 64}, {1, 1, 8}, layers, {0, 0, 0}, options.seed);
    const auto reach = predicted_reach(64, 8, layers, 0);
    for (int64_t x = 0; x < 64; ++x) differing += support[0][0][x].item<bool>() != reach[x];
  }
  r.figures.emplace_back("differing", double(differing));
  r.verdict = reached && differing == 0 ? Verdict::kHoldsIf : Verdict::kFalse;
  r.condition =
      printed("the stack is deep: %.0f layers for an axis of 64 tokens and windows of 8", r.figure("worst_64_8"));
  r.computed = "layers until the corner token sees its axis: " + worst + " (n,w = 16,4; 64,8; 128,8), best token " +
               best + ", with patch merging " + merged +
               printed("; %lld derivatives against the prediction", whole(differing));
  r.inputs = "alternating layers, shift w/2, seed " + std::to_string(options.seed),
  r.with = "boolean prediction, gradients of fovea::window_attention at n = 64";
  return r;
}

ClaimResult still_linear(const ClaimOptions&) {
  const kernels::AttentionLayer layer{{16, 16, 16}, {4, 4, 4}, 48, 3};
  const int64_t windows = kernels::attention_cost(kernels::AttentionReach::kWindows, layer).pairs;
  const int64_t shifted = kernels::attention_cost(kernels::AttentionReach::kShiftedWindows, layer).pairs;
  const PairCounts c = count_pairs({16, 16, 16}, {4, 4, 4}, {2, 2, 2});
  ClaimResult r;
  r.figures = {{"window_pairs", double(windows)},
               {"shifted_pairs", double(shifted)},
               {"masked_percent", 100.0 * double(c.masked) / double(c.pairs)},
               {"windows_with_mask", double(c.windows_with_mask)},
               {"windows", double(c.windows)}};
  r.verdict = shifted <= windows && c.pairs - c.masked == shifted ? Verdict::kExact : Verdict::kFalse;
  r.computed = printed(
      "%lld products against %lld of unshifted windows: %.1f %% of pairs masked, %lld of %lld windows need a mask",
      whole(shifted), whole(windows), r.figure("masked_percent"), whole(c.windows_with_mask), whole(c.windows));
  r.inputs = "16^3 tokens, windows of 4^3, shift 2", r.with = "the planner of fovea cost, region ids of the kernels";
  return r;
}

ClaimResult far_nodules(const ClaimOptions& options) {
  const std::vector<std::pair<NoduleNetwork, std::string>> networks = {{NoduleNetwork::kGlobal, "global"},
                                                                       {NoduleNetwork::kShiftedWindows, "shifted"},
                                                                       {NoduleNetwork::kWindows, "windows"},
                                                                       {NoduleNetwork::kSmallField, "convolutions"}};
  std::vector<NoduleNetwork> kinds;
  for (const auto& [kind, name] : networks) kinds.push_back(kind);
  const auto scores = learn_two_nodules(kinds, options.seed);
  ClaimResult r;
  bool as_stated = true;
  for (size_t i = 0; i < kinds.size(); ++i) {
    r.figures.emplace_back("accuracy_" + networks[i].second, scores[i].accuracy);
    r.figures.emplace_back("cross_entropy_" + networks[i].second, scores[i].cross_entropy_nats);
    as_stated &= can_compare_nodules(kinds[i]) ? scores[i].accuracy >= 0.95 : scores[i].accuracy <= 0.6;
    r.computed += printed("%s%s %.3f", i ? ", " : "accuracy: ", name_of(kinds[i]).c_str(), scores[i].accuracy);
  }
  r.verdict = as_stated ? Verdict::kHolds : Verdict::kFalse;
  r.computed += "; chance is 0.5";
  r.inputs = "made-up scans of 64^3, nodules at least 32 voxels apart, all four trained on the same, tested on 512 fresh; seed " +
             std::to_string(options.seed),
  r.with = "nn::TransformerBlock, nn::SwinTransformerBlock, torch::nn::Conv3d, trained";
  return r;
}
}  // namespace

std::vector<Claim> window_claims() {
  using enum ClaimCost;
  return {
      {"C15", "Windows cannot communicate", "no path", kSeconds, isolated},
      {"C17", "A corner block meets new neighbours after the shift", "new ones", kInstant, new_neighbours},
      {"C18", "In the end every block's field covers the image", "covers it", kSeconds, whole_field},
      {"C19", "... at still linear cost", "linear", kInstant, still_linear},
      {"C20", "Two far nodules are compared directly, without layer-by-layer convolution", "direct", kTrained,
       far_nodules},
  };
}

}  // namespace fovea::recipes
