// C21, C23 to C29, C48: heads, positions, norms and patches.
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "fovea/recipes/claims.h"
#include "fovea/recipes/layer_experiments.h"
#include "fovea/recipes/learning_rate_sweep.h"
#include "fovea/recipes/patch_experiments.h"
#include "fovea/recipes/right_neighbour.h"
#include "fovea/recipes/score_experiments.h"
#include "fovea/recipes/three_tissues.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

long long whole(int64_t n) { return static_cast<long long>(n); }

ClaimResult parameters_of_heads(const ClaimOptions&) {
  ClaimResult r;
  bool equal = true;
  const int64_t first = attention_parameters(768, 1, /*qkv_bias=*/true);
  for (const int64_t heads : {1, 2, 4, 8, 12}) {
    const int64_t n = attention_parameters(768, heads, /*qkv_bias=*/true);
    r.figures.emplace_back("parameters_" + std::to_string(heads), double(n));
    equal &= n == first;
  }
  r.verdict = equal ? Verdict::kExact : Verdict::kFalse;
  r.computed =
      printed("%lld parameters with 1, %.0f with 2, %.0f with 4, %.0f with 8, %.0f with 12 heads", whole(first),
              r.figures[1].second, r.figures[2].second, r.figures[3].second, r.figures[4].second);
  r.inputs = "width 768, all biases", r.with = "nn::SelfAttention";
  return r;
}

ClaimResult hot_or_cold(const ClaimOptions& options) {
  ClaimResult r;
  std::string line;
  double before = -1;
  bool rises = true;
  for (const double temperature : {0.25, 0.5, 1.0, 2.0, 4.0}) {
    const double entropy = entropy_at_temperature(temperature, options.seed);
    r.figures.emplace_back(printed("entropy_%g", temperature), entropy);
    line += printed("%s%.2f", line.empty() ? "" : ", ", entropy), rises &= entropy > before, before = entropy;
  }
  r.verdict = rises ? Verdict::kWordingInverted : Verdict::kHolds;
  r.computed = "entropy of softmax(s/tau): " + line + " nats at tau = 1/4, 1/2, 1, 2, 4: " +
               (rises ? "to focus, tau must fall and beta = 1/tau rise" : "a higher tau focuses");
  r.inputs = "500 rows of 64 normal scores, seed " + std::to_string(options.seed),
  r.with = "fovea::attention_rows, scale = 1/tau";
  if (!options.full) return r;
  const TissueHeads heads = learn_three_tissues(options.seed);
  const auto& beta = heads.beta;
  const bool ordered = heads.each_has_its_own && beta[kTumour] > beta[kOedema] && beta[kOedema] > beta[kNormal];
  for (const auto& [name, tissue] : {std::pair{"tumour", kTumour}, {"oedema", kOedema}, {"normal", kNormal}}) {
    r.figures.emplace_back(printed("beta_%s", name), beta[tissue]);
    r.figures.emplace_back(printed("tau_%s", name), heads.tau[tissue]);
  }
  if (!ordered) r.verdict = Verdict::kFalse;
  r.computed += printed(
      "; learnt by the heads of tumour, oedema and normal tissue: beta %.1f, %.1f, %.1f, tau %.3f, %.3f, %.3f",
      beta[kTumour], beta[kOedema], beta[kNormal], heads.tau[kTumour], heads.tau[kOedema], heads.tau[kNormal]);
  r.inputs += "; made-up feature vectors of three tissues, 1500 steps";
  r.with += "; nn::HeadTemperature, trained";
  return r;
}

ClaimResult one_head_for_all(const ClaimOptions& options) {
  const TissueHeads heads = learn_three_tissues(options.seed);
  double purity = 1, own = INFINITY, others = 0;
  for (int h = 0; h < kTissues; ++h)
    for (int t = 0; t < kTissues; ++t) {
      const double harm = heads.ablation[h][t];
      if (h == t)
        purity = std::min(purity, heads.purity[h][t]), own = std::min(own, harm);
      else
        others = std::max(others, harm);
    }
  ClaimResult r;
  r.figures = {{"error_three_heads", heads.three.mean_error()},
               {"error_one_head", heads.one.mean_error()},
               {"error_shared_temperature", heads.shared.mean_error()},
               {"parameters_three_heads", double(heads.three.parameters)},
               {"parameters_one_head", double(heads.one.parameters)},
               {"smallest_purity", purity},
               {"ablation_own", own},
               {"ablation_others", others}};
  const bool better = heads.three.mean_error() < heads.one.mean_error();
  r.verdict = better && heads.each_has_its_own && purity > 0.7 ? Verdict::kHolds : Verdict::kFalse;
  r.computed = printed(
      "squared error %.3f with three heads (%.0f parameters), %.3f with one (%.0f), of variance 1; each head gives its "
      "tissue at least %.2f of its attention; without it that tissue's error grows by %.2f or more, the others' by at "
      "most %.3f",
      heads.three.mean_error(), double(heads.three.parameters), heads.one.mean_error(), double(heads.one.parameters),
      purity, own, others);
  r.inputs = "made-up feature vectors of three tissues in orthogonal planes, 1500 steps, 4096 fresh scans, seed " +
             std::to_string(options.seed),
  r.with = "fovea::attention and nn::HeadTemperature, trained";
  return r;
}

ClaimResult permuted(const ClaimOptions& options) {
  const Equivariance e = permute_tokens(options.seed);
  ClaimResult r;
  r.figures = {{"equivariance", e.unbiased}, {"invariance", e.unmoved}, {"with_bias", e.biased}, {"pooled", e.pooled}};
  const bool equivariant = e.unbiased <= 1e-5, invariant = e.unmoved <= 1e-5;
  r.verdict = invariant ? Verdict::kExact : equivariant ? Verdict::kWordingLoose : Verdict::kFalse;
  r.computed = printed(
      "equivariant: outputs move along (%.1e), they do not stay (%.1f); pooled they are invariant (%.1e); with a bias "
      "neither (%.1f)",
      e.unbiased, e.unmoved, e.pooled, e.biased);
  r.inputs = "60 tokens, 4 heads, a random order, seed " + std::to_string(options.seed), r.with = "fovea::attention";
  return r;
}

ClaimResult right_neighbour(const ClaimOptions& options) {
  int peaks = 0;
  double worst = 1, blind_best = 0;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const RightNeighbour learned = learn_right_neighbour(/*with_bias=*/true, options.seed + 10 + seed),
                         blind = learn_right_neighbour(/*with_bias=*/false, options.seed + 10 + seed);
    peaks += learned.peaks_at_right_neighbour, worst = std::min(worst, learned.accuracy),
                                               blind_best = std::max(blind_best, blind.accuracy - blind.majority);
  }
  ClaimResult r;
  r.figures = {{"peaks_of_5", double(peaks)}, {"worst_accuracy", worst}, {"blind_above_majority", blind_best}};
  r.verdict = peaks == 5 && worst > 0.99 ? Verdict::kHolds : Verdict::kFalse;
  r.computed = printed(
      "largest entry at (0,0,+1) in %d of 5 trainings, worst accuracy %.3f; without bias at most %.3f above the most "
      "frequent symbol",
      peaks, worst, blind_best);
  r.inputs = "windows of 4^3 random symbols, 250 steps, seeds " + std::to_string(options.seed + 10) + " and following",
  r.with = "fovea::window_attention, trained";
  return r;
}

ClaimResult implicit(const ClaimOptions& options) {
  const ImplicitTemperature t = implicit_temperature(64, options.seed);
  ClaimResult r;
  r.figures = {{"identity", t.identity},
               {"correlation", t.correlation},
               {"activations", t.activations},
               {"mean_temperature", t.mean_temperature}};
  r.verdict =
      t.identity <= 1e-12 && t.correlation <= 1e-12 && t.activations <= 1e-4 ? Verdict::kExact : Verdict::kFalse;
  r.computed = printed(
      "scores are sqrt(C) corr(q,k) within %.1e and q.k/(tau sqrt(C)), tau = sigma_q sigma_k, within %.1e; mean tau "
      "%.2f for sigmas 3 and 0.2",
      t.correlation, t.identity, t.mean_temperature);
  r.inputs = "200 normal queries and keys, C = 64, seed " + std::to_string(options.seed) +
             "; q and k of a layer on scan patches: " + printed("%.1e", t.activations) + " in float";
  r.with = "nn::QkNorm";
  return r;
}

ClaimResult well_behaved(const ClaimOptions& options) {
  const ImplicitTemperature t = implicit_temperature(64, options.seed);
  ClaimResult r;
  r.figures = {{"bound", t.bound}, {"largest_score", t.largest_score}, {"change_x100", t.change}};
  r.verdict = t.largest_score <= t.bound * (1 + 1e-12) && t.change <= 1e-6 ? Verdict::kExact : Verdict::kFalse;
  r.computed = printed("largest |score| %.4f of at most sqrt(C) = %.0f; inputs x100 change a score by %.1e",
                       t.largest_score, t.bound, t.change);
  r.inputs = "random, aligned, opposite, constant and huge vectors, C = 64, epsilon 1e-12, seed " +
             std::to_string(options.seed),
  r.with = "nn::QkNorm";
  return r;
}

ClaimResult stabler(const ClaimOptions& options) {
  const SweepConfig config = full_sweep(options.seed);
  const LearningRateSweep sweep = sweep_learning_rates(config, data::read_fashion_mnist());
  const double with = sweep.sensitivity(true), without = sweep.sensitivity(false);
  ClaimResult r;
  r.figures = {{"sensitivity_with", with},
               {"sensitivity_without", without},
               {"ratio", with / without},
               {"accuracy_with", sweep.best_accuracy(true)},
               {"accuracy_without", sweep.best_accuracy(false)},
               {"largest_score_with", sweep.largest_score(true)},
               {"largest_score_without", sweep.largest_score(false)}};
  r.verdict = with <= without / 3 ? Verdict::kHolds : with < without ? Verdict::kHoldsIf : Verdict::kFalse;
  r.condition = printed("stabler means a learning-rate sensitivity smaller by %.0f %%", 100 * (1 - with / without));
  r.computed = printed(
      "learning-rate sensitivity %.3f with, %.3f without; best accuracy %.3f and %.3f; largest score of any run %.3g and %.3g", with,
      without, r.figure("accuracy_with"), r.figure("accuracy_without"), r.figure("largest_score_with"), r.figure("largest_score_without"));
  r.inputs = "Fashion-MNIST; " + sweep_text(config), r.with = "nn::MultiHeadAttention, trained";
  return r;
}

ClaimResult patches_are_linear(const ClaimOptions& options) {
  const double difference = patch_projection_difference(options.seed);
  const SampleScan scan = sample_scan(options.seed);
  const int64_t changed = voxels_changed_by_patchify(scan.voxels, 16);
  ClaimResult r;
  r.figures = {{"difference", difference}, {"voxels_changed", double(changed)}};
  r.verdict = difference <= 1e-6 && changed == 0 ? Verdict::kExact : Verdict::kFalse;
  r.computed = printed(
      "strided convolution and flatten + linear differ by %.1e; %lld of %lld voxels change by cutting and joining",
      difference, whole(changed), whole(scan.voxels.numel()));
  r.inputs = std::string(scan.real ? "Colin27 T1" : "random smooth volume") + ", 181x217x181; seed " +
             std::to_string(options.seed),
  r.with = "nn::PatchEmbed";
  return r;
}
}  // namespace

std::vector<Claim> layer_claims() {
  using enum ClaimCost;
  return {
      {"C21", "Multi-head has almost the same number of parameters", "almost equal", kInstant, parameters_of_heads},
      {"C23", "The tumour head uses a 'higher temperature', i.e. a smaller scale factor", "higher", kSeconds,
       hot_or_cold},
      {"C24", "One head cannot serve all three tissues", "cannot", kTrained, one_head_for_all},
      {"C25", "Self-attention is permutation-invariant", "invariant", kSeconds, permuted},
      {"C26", "A relative bias can learn 'the right neighbour matters more'", "learns it", kTrained, right_neighbour},
      {"C27", "LayerNorm of q, k gives an implicit temperature from sigma_x, sigma_y", "sigma_x sigma_y", kSeconds,
       implicit},
      {"C28", "Scores are then always in a well-behaved range", "bounded", kSeconds, well_behaved},
      {"C29", "Normalising q and k stabilises training", "stabler", kTrained, stabler},
      {"C48", "Cutting, flattening and one linear map turn a volume into tokens", "equal", kSeconds,
       patches_are_linear},
  };
}

}  // namespace fovea::recipes
