// C30, C32, C34, C39, C40, C43, C46: statements on applications that need no training.
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "fovea/data/patch_mask.h"
#include "fovea/ops/axial_attention.h"
#include "fovea/recipes/claims.h"
#include "fovea/recipes/gaussian_ring.h"
#include "fovea/recipes/hidden_patches.h"
#include "fovea/recipes/kernel_experiments.h"
#include "fovea/recipes/spatial_counts.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

long long whole(int64_t n) { return static_cast<long long>(n); }

ClaimResult kernel_smoother(const ClaimOptions& options) {
  const LoopDifferences d = attention_against_loops(options.seed);
  ClaimResult r;
  r.figures = {{"gaussian", d.gaussian},
               {"dot_product", d.dot_product},
               {"dot_product_unit_keys", d.dot_product_unit_keys}};
  r.verdict = d.gaussian <= 1e-12 ? Verdict::kExact : Verdict::kFalse;
  r.computed = printed(
      "q = [x,1], k = [x_i, -|x_i|^2/2], scale 1/h^2: difference %.1e; plain dot products %.1e on unit-norm keys, %.2g "
      "on others",
      d.gaussian, d.dot_product_unit_keys, d.dot_product);
  r.inputs = "300 points and 200 queries in 3-D, h = 0.5, seed " + std::to_string(options.seed),
  r.with = "fovea::attention in double against plain loops";
  return r;
}

ClaimResult best_ring(const ClaimOptions& options) {
  const BestRadii best = best_radii();
  ClaimResult r;
  r.figures = {{"edge", best.edge}, {"shell_mass", best.shell_mass}, {"size", best.size}, {"intensity", best.intensity}};
  r.verdict = std::abs(best.edge - 1) < 1e-3 ? Verdict::kHoldsIf : Verdict::kFalse;
  r.condition = "the goal is edge or position, or mass on a 2-D ring";
  r.computed = printed(
      "%.3f sigma for edge, position and mass on a ring; %.3f for mass on a 3-D shell and %.3f for size; %.0f for "
      "intensity",
      best.edge, best.shell_mass, best.size, best.intensity);
  r.inputs = "exp(-r^2 / 2 sigma^2), r from 0 to 4 sigma in steps of 1e-4", r.with = "arithmetic";
  if (options.full) {
    for (const RingGoal goal : {RingGoal::kPosition, RingGoal::kSize}) {
      double mean = 0;
      for (const RingPoints& tumour : learn_ring(goal, {2, 4, 6, 8}, options.seed).tumours) mean += tumour.radius / 4;
      r.figures.emplace_back("learned_" + name_of(goal), mean);
      r.computed += printed("; learned on simulated tumours for %s %.3f", name_of(goal).c_str(), mean);
    }
    r.with = "arithmetic; nn::MultiScaleDeformableAttention, seed " + std::to_string(options.seed);
  }
  return r;
}

ClaimResult few_weights(const ClaimOptions&) {
  ClaimResult r;
  bool all = true;
  for (const int axes : {2, 3})
    for (const int kernel : {1, 3, 7}) {
      const int64_t weights = gate_weights(kernel, axes);
      all &= weights == 2 * int64_t(std::pow(kernel, axes));
      r.figures.emplace_back(printed("k%d_%dd", kernel, axes), double(weights));
    }
  r.verdict = all ? Verdict::kExact : Verdict::kFalse;
  r.computed = printed("%.0f (k = 1), %.0f (k = 3), %.0f (k = 7); 3-D %.0f (k = 3), %.0f (k = 7)", r.figure("k1_2d"), r.figure("k3_2d"),
                       r.figure("k7_2d"), r.figure("k3_3d"), r.figure("k7_3d"));
  r.inputs = "weights of the gate's convolution", r.with = "nn::SpatialGate";
  return r;
}

ClaimResult hidden_97(const ClaimOptions&) {
  const int64_t kept = data::kept_patches(4096, 0.97);
  ClaimResult r;
  r.figures = {{"kept", double(kept)}};
  r.verdict = kept == int64_t(4096 * 0.03) ? Verdict::kExact : Verdict::kFalse;
  r.computed = printed("%lld of 4096 patches stay", whole(kept));
  r.inputs = "ratio 0.97", r.with = "data::kept_patches";
  return r;
}

ClaimResult hidden_neighbourhoods(const ClaimOptions& options) {
  ClaimResult r;
  double worst = 0;
  for (const double ratio : {0.97, 0.75}) {
    const HiddenNeighbours found = hidden_neighbours(ratio, 400, options.seed);
    worst = std::max(worst, found.standard_errors());
    const std::string name = printed("_%.0f", 100 * ratio);
    r.figures.emplace_back("all_6" + name, found.exact[0]), r.figures.emplace_back("all_26" + name, found.exact[1]),
        r.figures.emplace_back("visible" + name, found.exact[2]);
  }
  r.figures.emplace_back("monte_carlo_standard_errors", worst);
  r.verdict = r.figure("all_26_97") > 0.1 && worst <= 3 ? Verdict::kHolds : Verdict::kFalse;
  r.computed = printed(
      "at 97 %% P(all 6) %.3f, P(all 26) %.3f, %.2f visible of 26; at 75 %% %.3f and %.4f; 400 drawn masks agree "
      "within %.1f standard errors",
      r.figure("all_6_97"), r.figure("all_26_97"), r.figure("visible_97"), r.figure("all_6_75"), r.figure("all_26_75"),
      worst);
  r.inputs = "hidden interior blocks of 16^3, seed " + std::to_string(options.seed),
  r.with = "hypergeometric products, data::draw_kept_patches";
  return r;
}

ClaimResult rows_and_columns(const ClaimOptions& options) {
  // Tokens with a non-zero derivative of the output at species 2, position 5.
  const auto mixed = [&](const char* axis) {
    auto generator = at::detail::createCPUGenerator(options.seed);
    const auto qkv = torch::randn({1, 6, 9, 3, 1, 8}, generator, torch::kFloat64).requires_grad_();
    ops::axial_attention(qkv, axis)[0][2][5].sum().backward();
    const auto support = (qkv.grad() != 0).flatten(3).any(-1)[0];  // [R,L]
    const int64_t species = support.select(1, 5).sum().item<int64_t>(),
                  positions = support.select(0, 2).sum().item<int64_t>();
    return std::array<int64_t, 3>{species, positions, support.sum().item<int64_t>()};
  };
  const auto row = mixed("residues"), column = mixed("sequences");
  ClaimResult r;
  r.figures = {{"row_species", double(row[0])},
               {"row_positions", double(row[1])},
               {"column_species", double(column[0])},
               {"column_positions", double(column[1])}};
  const bool rows_stay_in_a_species =
      row == std::array<int64_t, 3>{1, 9, 9} && column == std::array<int64_t, 3>{6, 1, 6};
  r.verdict = rows_stay_in_a_species ? Verdict::kWordingInverted : Verdict::kFalse;
  r.computed = printed(
      "of 6 species x 9 positions, AlphaFold 2's row attention (axis residues) mixes %lld species, %lld positions; its "
      "column attention %lld, %lld",
      whole(row[0]), whole(row[1]), whole(column[0]), whole(column[1]));
  r.inputs = "random alignment, seed " + std::to_string(options.seed), r.with = "gradients of fovea::axial_attention";
  return r;
}

ClaimResult green(const ClaimOptions&) {
  // -u'' = f on (0, 1), u = 0 at both ends, 63 inner nodes: inverse of the 3-point matrix against h G(x_i, x_j).
  const auto difference = [](torch::ScalarType type) {
    constexpr int64_t n = 63;
    const double h = 1.0 / (n + 1);
    const auto options = torch::TensorOptions(type);
    const auto matrix = (2 * torch::eye(n, options) - torch::diag(torch::ones({n - 1}, options), 1) -
                         torch::diag(torch::ones({n - 1}, options), -1)) /
                        (h * h);
    const auto x = torch::arange(1, n + 1, torch::TensorOptions(torch::kFloat64)) * h;
    const auto exact = torch::minimum(x.unsqueeze(1), x) * (1 - torch::maximum(x.unsqueeze(1), x));
    return (torch::linalg_inv(matrix).to(torch::kFloat64) / h - exact).abs().max().item<double>();
  };
  const double f64 = difference(torch::kFloat64), f32 = difference(torch::kFloat32);
  ClaimResult r;
  r.figures = {{"difference_f64", f64}, {"difference_f32", f32}};
  r.verdict = f64 <= 1e-12 ? Verdict::kExact : Verdict::kFalse;
  r.computed = printed("at the nodes %.1e in double, %.1e in float", f64, f32);
  r.inputs = "63 inner nodes on (0, 1)", r.with = "inverse of the 3-point matrix";
  return r;
}
}  // namespace

std::vector<Claim> application_claims() {
  using enum ClaimCost;
  return {
      {"C30", "Attention is Nadaraya-Watson kernel regression", "equal", kSeconds, kernel_smoother},
      {"C32", "For a Gaussian tumour the best sampling ring has radius exactly sigma", "1 sigma", kSeconds, best_ring},
      {"C34", "Spatial attention costs only a few parameters", "a few", kInstant, few_weights},
      {"C39", "MAE hides up to 97 %", "97 %", kInstant, hidden_97},
      {"C40", "... and a block's neighbours may all be hidden too", "all hidden", kSeconds, hidden_neighbourhoods},
      {"C43", "Axial attention: first 'rows' = across species at one position, then 'columns'", "rows: species",
       kSeconds, rows_and_columns},
      {"C46", "The finite-difference inverse is the Green's function", "equal", kInstant, green},
  };
}

}  // namespace fovea::recipes
