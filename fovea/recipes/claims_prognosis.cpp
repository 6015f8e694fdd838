// C42, C50: what two tasks do to one trunk.
#include <algorithm>

#include "fovea/recipes/claims.h"
#include "fovea/recipes/tumour_prognosis.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;
constexpr int64_t kPatients = 150;

void say_how(ClaimResult& r, const ClaimOptions& options) {
  r.inputs = printed("simulated tumours among benign lesions, %d patients to learn and 400 fresh, seed ", int(kPatients)) + std::to_string(options.seed);
  r.with = "models::PatientNetwork, trained with Cox's loss and the outline's";
}

ClaimResult both_reach_the_trunk(const ClaimOptions& options) {
  const auto t = learn_tumour_prognosis(kPatients, options.seed);
  ClaimResult r;
  r.figures = {{"outcome_gradient_norm", t.agreement.first_norm}, {"outline_gradient_norm", t.agreement.second_norm}, {"cosine", t.agreement.cosine}};
  r.computed = printed("gradient norms on the shared attention's weights %.3g (outcome) and %.3g (outline), cosine %.2f", t.agreement.first_norm, t.agreement.second_norm, t.agreement.cosine);
  r.verdict = std::min(t.agreement.first_norm, t.agreement.second_norm) > 1e-6 ? Verdict::kHolds : Verdict::kFalse;
  say_how(r, options);
  return r;
}

ClaimResult one_task_helps_the_other(const ClaimOptions& options) {
  const auto t = learn_tumour_prognosis(kPatients, options.seed);
  ClaimResult r;
  r.figures = {{"concordance_joint", t.joint.concordance}, {"concordance_alone", t.outcome_alone.concordance}, {"gain_low", t.gain.low}, {"gain_high", t.gain.high},
               {"dice_joint", t.joint.dice}, {"dice_alone", t.outline_alone.dice}, {"concordance_cox_volume", t.cox_volume}};
  r.computed = printed("C-index %.3f with the outline, %.3f without (gain, 95 %% of resamples %.3f to %.3f; Cox on the true volume %.3f); Dice of the outline %.3f with the outcome, %.3f without",
                       t.joint.concordance, t.outcome_alone.concordance, t.gain.low, t.gain.high, t.cox_volume, t.joint.dice, t.outline_alone.dice);
  const bool prognosis = t.gain.low > 0, outline = t.joint.dice > t.outline_alone.dice + 0.01;
  r.verdict = !prognosis ? Verdict::kFalse : outline ? Verdict::kHolds : Verdict::kHoldsIf;
  if (r.verdict == Verdict::kHoldsIf) r.condition = "it is the outline that helps the prognosis, not the other way round";
  say_how(r, options);
  return r;
}
}  // namespace

std::vector<Claim> prognosis_claims() {
  return {{"C42", "Both task losses update the same attention weights", "both", ClaimCost::kTrained, both_reach_the_trunk},
          {"C50", "Knowledge of one task helps the other", "helps", ClaimCost::kTrained, one_task_helps_the_other}};
}

}  // namespace fovea::recipes
