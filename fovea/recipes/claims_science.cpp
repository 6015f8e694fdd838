// C45: claims on models of the sciences.
#include "fovea/recipes/claims.h"
#include "fovea/recipes/greens_function.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
ClaimResult greens_function(const ClaimOptions& options) {
  const auto linear = learn_green(OperatorNetwork::kFourier, {}, options.seed), softmax = learn_green(OperatorNetwork::kSoftmax, {}, options.seed);
  ClaimResult r;
  r.figures = {{"relative_l2", linear.relative_l2},         {"effective", linear.effective},         {"filtered", linear.filtered},        {"raw", linear.raw},
               {"relative_l2_softmax", softmax.relative_l2}, {"effective_softmax", softmax.effective}, {"filtered_softmax", softmax.filtered}, {"raw_softmax", softmax.raw}};
  const bool resembles = linear.effective >= 0.96 && softmax.effective >= 0.96, raw = softmax.raw >= 0.96;
  r.verdict = !resembles ? Verdict::kFalse : raw ? Verdict::kHolds : Verdict::kHoldsIf;
  r.condition = "the kernel is the effective one, du_i / df_j, not the map of a head";
  r.computed = report::printed(
      "correlation with min(x,y)(1-max(x,y)): effective kernel %.3f (softmax %.3f), seen through the forcing %.3f (%.3f), best map of a head %.2f (%.2f); relative L2 %.3f (%.3f)",
      linear.effective, softmax.effective, linear.filtered, softmax.filtered, linear.raw, softmax.raw, linear.relative_l2, softmax.relative_l2);
  r.inputs = "Gaussian-process forcings of length 0.05 at 48 points, seed " + std::to_string(options.seed);
  r.with = "models::OperatorTransformer with rotary coordinates";
  return r;
}
}  // namespace

std::vector<Claim> science_claims() {
  return {{"C45", "A RoPE transformer learns -u'' = f and its kernel resembles the Green's function", "resembles", ClaimCost::kTrained, greens_function}};
}

}  // namespace fovea::recipes
