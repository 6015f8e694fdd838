// C1 to C7: scores and softmax.
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "fovea/ops/attention.h"
#include "fovea/recipes/claims.h"
#include "fovea/recipes/score_experiments.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

constexpr std::array<int64_t, 4> kWidths = {16, 64, 128, 512};

std::string draws_text(const ClaimOptions& options) {
  return "2000 draws of one query and 64 keys, entries normal(0, 1), C = 16, 64, 128, 512, seed " +
         std::to_string(options.seed);
}

// For each of kWidths.
struct Statistics {
  std::vector<ScoreStatistics> raw, scaled;
};
Statistics statistics(const ClaimOptions& options) {
  Statistics all;
  for (const int64_t C : kWidths) {
    const Scaling both = compare_scaling(C, {2000, 64, options.seed});
    all.raw.push_back(both.unscaled), all.scaled.push_back(both.scaled);
  }
  return all;
}

ClaimResult definition(const ClaimOptions& options) {
  const DefinitionErrors e = attention_against_definition(20, options.seed);
  ClaimResult r;
  r.verdict = e.f64 <= 1e-12 && e.f32 <= 1e-5 ? Verdict::kExact : Verdict::kFalse;
  r.computed =
      printed("largest difference from softmax(q k^T / sqrt(C)) v: %.1e in double, %.1e in float", e.f64, e.f32);
  r.figures = {{"difference_f64", e.f64}, {"difference_f32", e.f32}};
  r.inputs = "20 random shapes, seed " + std::to_string(options.seed),
  r.with = "fovea::attention against torch's matmul and softmax in double";
  return r;
}

ClaimResult dot_against_cosine(const ClaimOptions&) {
  torch::NoGradGuard no_grad;
  // A query, a short key along it, and a long one at an angle to it.
  const auto q = torch::tensor({1.0, 0.0}, torch::kFloat64), aligned = torch::tensor({1.0, 0.0}, torch::kFloat64),
             longer = torch::tensor({2.0, 2.0}, torch::kFloat64);
  const auto keys = torch::stack({aligned, longer}).view({1, 1, 2, 2});
  const auto weights = ops::attention_rows(q.view({1, 1, 1, 2}), keys, torch::zeros({1}, torch::kInt64))[0][0][0];
  const auto cosine = [&](const torch::Tensor& k) { return (q.dot(k) / (q.norm() * k.norm())).item<double>(); };
  ClaimResult r;
  r.figures = {{"cosine_aligned", cosine(aligned)},
               {"cosine_longer", cosine(longer)},
               {"dot_aligned", q.dot(aligned).item<double>()},
               {"dot_longer", q.dot(longer).item<double>()},
               {"weight_aligned", weights[0].item<double>()},
               {"weight_longer", weights[1].item<double>()}};
  const bool outscored =
      r.figure("cosine_longer") < r.figure("cosine_aligned") && r.figure("weight_longer") > r.figure("weight_aligned");
  r.verdict = outscored ? Verdict::kWordingLoose : Verdict::kHolds;
  r.computed =
      printed("only at equal length: key (1,0) cos %.2f dot %.0f weight %.2f, key (2,2) cos %.2f dot %.0f weight %.2f",
              r.figure("cosine_aligned"), r.figure("dot_aligned"), r.figure("weight_aligned"),
              r.figure("cosine_longer"), r.figure("dot_longer"), r.figure("weight_longer"));
  r.inputs = "query (1,0)", r.with = "fovea::attention_rows";
  return r;
}

ClaimResult variance(const ClaimOptions& options) {
  const auto [raw, scaled] = statistics(options);
  ClaimResult r;
  double worst = 0, worst_scaled = 0;
  for (size_t i = 0; i < raw.size(); ++i) {
    r.figures.emplace_back("variance_" + std::to_string(raw[i].channels), raw[i].variance);
    r.figures.emplace_back("variance_scaled_" + std::to_string(raw[i].channels), scaled[i].variance);
    worst = std::max(worst, std::abs(raw[i].variance / double(raw[i].channels) - 1)),
    worst_scaled = std::max(worst_scaled, std::abs(scaled[i].variance - 1));
  }
  r.verdict = worst < 0.05 && worst_scaled < 0.05 ? Verdict::kHolds : Verdict::kFalse;
  r.computed = printed("Var(q.k) = %.2f, %.1f, %.1f, %.1f for C = 16, 64, 128, 512; scaled %.2f, %.2f, %.2f, %.2f",
                       raw[0].variance, raw[1].variance, raw[2].variance, raw[3].variance, scaled[0].variance,
                       scaled[1].variance, scaled[2].variance, scaled[3].variance);
  r.inputs = draws_text(options), r.with = "torch's matmul";
  return r;
}

ClaimResult confidence(const ClaimOptions& options) {
  const auto [raw, scaled] = statistics(options);
  ClaimResult r;
  for (size_t i = 0; i < raw.size(); ++i) {
    const std::string C = std::to_string(raw[i].channels);
    r.figures.emplace_back("largest_weight_" + C, raw[i].largest_weight),
        r.figures.emplace_back("entropy_" + C, raw[i].entropy_nats);
    r.figures.emplace_back("largest_weight_scaled_" + C, scaled[i].largest_weight),
        r.figures.emplace_back("entropy_scaled_" + C, scaled[i].entropy_nats);
  }
  const bool rises = std::is_sorted(raw.begin(), raw.end(),
                                    [](const auto& a, const auto& b) { return a.largest_weight < b.largest_weight; });
  r.verdict =
      rises && raw[1].largest_weight > 0.75 && scaled[1].largest_weight < 0.25 ? Verdict::kHolds : Verdict::kFalse;
  r.computed = printed(
      "mean largest weight %.2f, %.2f, %.2f, %.2f (C = 16, 64, 128, 512), scaled %.3f; entropy %.2f, %.2f, %.2f, %.2f "
      "nats, scaled %.2f of %.2f",
      raw[0].largest_weight, raw[1].largest_weight, raw[2].largest_weight, raw[3].largest_weight,
      scaled[1].largest_weight, raw[0].entropy_nats, raw[1].entropy_nats, raw[2].entropy_nats, raw[3].entropy_nats,
      scaled[1].entropy_nats, std::log(64.0));
  r.inputs = draws_text(options), r.with = "fovea::attention_rows";
  return r;
}

ClaimResult vanishing(const ClaimOptions& options) {
  const auto [raw, all_scaled] = statistics(options);
  const ScoreStatistics& scaled = all_scaled[3];
  ClaimResult r;
  for (const auto& s : raw) r.figures.emplace_back("gradient_mass_" + std::to_string(s.channels), s.gradient_mass);
  const double factor = scaled.gradient_mass / raw[3].gradient_mass;
  r.figures.emplace_back("gradient_mass_scaled", scaled.gradient_mass), r.figures.emplace_back("factor_512", factor);
  const bool shrinks = raw[0].gradient_mass > raw[1].gradient_mass && raw[1].gradient_mass > raw[2].gradient_mass &&
                       raw[2].gradient_mass > raw[3].gradient_mass;
  r.verdict = shrinks && factor > 2 && raw[3].gradient_mass > 0 ? Verdict::kHoldsIf : Verdict::kFalse;
  r.condition = printed("vanishing means %.0f times smaller at C = 512, not zero", factor);
  r.computed =
      printed("sum p(1-p) = %.3f, %.3f, %.3f, %.3f for C = 16, 64, 128, 512; scaled %.2f", raw[0].gradient_mass,
              raw[1].gradient_mass, raw[2].gradient_mass, raw[3].gradient_mass, scaled.gradient_mass);
  r.inputs = draws_text(options), r.with = "fovea::attention_rows";
  if (options.full) {
    Recall with, without;  // means
    for (uint64_t seed = 0; seed < 5; ++seed)
      for (const bool is_scaled : {true, false}) {
        const Recall one = learn_recall(is_scaled, 512, options.seed + seed);
        Recall& mean = is_scaled ? with : without;
        mean.accuracy += one.accuracy / 5, mean.gradient_norm += one.gradient_norm / 5;
      }
    r.figures.emplace_back("accuracy_scaled", with.accuracy), r.figures.emplace_back("accuracy_unscaled", without.accuracy);
    r.figures.emplace_back("gradient_norm_scaled", with.gradient_norm),
        r.figures.emplace_back("gradient_norm_unscaled", without.gradient_norm);
    r.computed += printed(
        "; trained at C = 512 to recall one of 8 values: accuracy %.2f scaled, %.2f unscaled, first gradient norm of the "
        "query projection %.2f and %.2f",
        with.accuracy, without.accuracy, with.gradient_norm, without.gradient_norm);
    r.with += ", fovea::attention trained with 5 seeds";
  }
  return r;
}

ClaimResult budget(const ClaimOptions& options) {
  const Budget b = softmax_budget(1000, 64, options.seed);
  ClaimResult r;
  r.figures = {{"sum_error", b.sum_error},
               {"smallest_weight", b.smallest_weight},
               {"pairs_out_of_order", double(b.pairs_out_of_order)},
               {"effective_keys", b.effective_keys},
               {"raised_without_lowering", double(b.raised_without_lowering)},
               {"over_budget", double(b.over_budget)}};
  const bool exact = b.sum_error <= 1e-12 && b.smallest_weight >= 0 && b.pairs_out_of_order == 0 &&
                     b.raised_without_lowering == 0 && b.over_budget == 0;
  r.verdict = exact ? Verdict::kExact : Verdict::kFalse;
  r.computed =
      printed("largest |sum - 1| %.1e, smallest weight %.1e, %lld weights out of order, %.1f of 64 keys in effect",
              b.sum_error, b.smallest_weight, static_cast<long long>(b.pairs_out_of_order), b.effective_keys);
  r.inputs = "1000 rows of 64 scores, normal(0, 3), seed " + std::to_string(options.seed),
  r.with = "fovea::attention_rows in double";
  return r;
}

ClaimResult two_queries_three_keys(const ClaimOptions&) {
  const WorkedExample e = worked_example();
  const auto w = [&](int64_t i, int64_t j) { return e.weights[i][j].item<double>(); };
  ClaimResult r;
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t j = 0; j < 3; ++j)
      r.figures.emplace_back(
          printed("weight_q%lld_k%lld", static_cast<long long>(i + 1), static_cast<long long>(j + 1)), w(i, j));
  r.figures.emplace_back("o1", e.out[0].item<double>()), r.figures.emplace_back("o2", e.out[1].item<double>());
  r.verdict = w(0, 1) < 0.05 && w(0, 0) > 0.25 && w(0, 2) > 0.25 ? Verdict::kHolds : Verdict::kFalse;
  r.computed =
      printed("weights of q1 %.3f / %.3f / %.3f, of q2 %.3f / %.3f / %.3f; o1 = %.3f, o2 = %.3f for v = 1, 10, 2",
              w(0, 0), w(0, 1), w(0, 2), w(1, 0), w(1, 1), w(1, 2), r.figure("o1"), r.figure("o2"));
  r.inputs = "q = (2,0), (0,2); k = (2,0), (-2,0), (1.8,0.2)", r.with = "fovea::attention, fovea::attention_rows";
  return r;
}
}  // namespace

std::vector<Claim> score_claims() {
  using enum ClaimCost;
  return {
      {"C1", "Attention is softmax(QK^T/sqrt(d))V, a weighted mean of the values", "equal", kSeconds, definition},
      {"C2", "The dot product measures how well two vectors agree", "yes", kInstant, dot_against_cosine},
      {"C3", "With large d (64, 128) the variance of dot products is large", "grows with d", kSeconds, variance},
      {"C4", "Unscaled, softmax gives nearly all weight to one key", "nearly 1", kSeconds, confidence},
      {"C5", "... and gradients vanish", "to 0", kSeconds, vanishing},
      {"C6", "Softmax rows are a limited budget; a higher score gets a larger weight", "sum 1, ordered", kSeconds,
       budget},
      {"C7", "q1 like k1 and k3, not k2: the output mixes v1 and v3, v2 nearly ignored", "w12 near 0", kInstant,
       two_queries_three_keys},
  };
}

}  // namespace fovea::recipes
