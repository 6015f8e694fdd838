// C35, C36: claims on models that join a scan with another modality.
#include <cmath>

#include "fovea/recipes/claims.h"
#include "fovea/recipes/ct_asks_pet.h"
#include "fovea/recipes/side_and_flag.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
ClaimResult co_attention(const ClaimOptions& options) {
  const std::vector<SideFlagNetwork> networks = {SideFlagNetwork::kTwoWay, SideFlagNetwork::kImageAlone,
                                                 SideFlagNetwork::kTableAlone, SideFlagNetwork::kLate};
  const SideFlagResult found = learn_side_and_flag(networks, options.seed);
  const SideFlagAttention& a = *found.attention;
  ClaimResult r;
  r.figures = {{"two_way", found.scores[0].accuracy},     {"image_alone", found.scores[1].accuracy},
               {"table_alone", found.scores[2].accuracy}, {"late", found.scores[3].accuracy},
               {"flag_on_lesion_side", a.on_lesion_side}, {"lesion_on_flag", a.lesion_on_flag}};
  const bool alone_guess = found.scores[1].accuracy <= 0.6 && found.scores[2].accuracy <= 0.6 && found.scores[3].accuracy <= 0.6;
  const bool linked = a.on_lesion_side > 0.5 && a.lesion_on_flag > 0.25;  // more than if they looked anywhere
  const bool answers = found.scores[0].accuracy > 0.95 && alone_guess;
  r.verdict = !answers ? Verdict::kFalse : linked ? Verdict::kHolds : Verdict::kHoldsIf;
  r.condition = "judged by the answers: attention that gives them need not point at the lesion";
  r.computed = report::printed(
      "side XOR flag: co-attention %.3f, image alone %.3f, table alone %.3f, late concatenation %.3f; flag looks at the "
      "lesion's side with %.2f, that side at the flag with %.2f of its attention",
      found.scores[0].accuracy, found.scores[1].accuracy, found.scores[2].accuracy, found.scores[3].accuracy,
      a.on_lesion_side, a.lesion_on_flag);
  r.inputs = "simulated scans and tables, seed " + std::to_string(options.seed);
  r.with = "nn::CoAttention, nn::FeatureTokens";
  return r;
}

ClaimResult ct_asks_pet(const ClaimOptions& options) {
  const CtPetResult found = learn_ct_pet({CtPetNetwork::kCrossAttention, CtPetNetwork::kConcatenation,
                                          CtPetNetwork::kCtAlone, CtPetNetwork::kPetAlone},
                                         options.seed);
  const auto& s = found.scores;
  const double slope = found.attention->slope;
  ClaimResult r;
  r.figures = {{"dice", s[0].dice},           {"dice_concatenation", s[1].dice}, {"dice_ct", s[2].dice},
               {"dice_pet", s[3].dice},       {"hd95_mm", s[0].hd95_mm},         {"hd95_concatenation_mm", s[1].hd95_mm},
               {"hd95_pet_mm", s[3].hd95_mm}, {"auc_ct", s[2].auc},              {"slope", slope}};
  bool best = true;
  for (size_t i = 1; i < s.size(); ++i) best = best && s[0].dice > s[i].dice && s[0].hd95_mm < s[i].hd95_mm;
  r.verdict = best && std::abs(s[2].auc - 0.5) <= 0.1 && std::abs(slope - 1) <= 0.1 ? Verdict::kHolds : Verdict::kFalse;
  r.computed = report::printed(
      "Dice and HD95: CT asks PET %.3f, %.2f mm; concatenation %.3f, %.2f mm; PET alone %.3f, %.2f mm; CT alone %.3f (AUC "
      "viable/necrotic %.2f); PET moved: attention follows with slope %.2f",
      s[0].dice, s[0].hd95_mm, s[1].dice, s[1].hd95_mm, s[3].dice, s[3].hd95_mm, s[2].dice, s[2].auc, slope);
  r.inputs = "simulated CT and PET, seed " + std::to_string(options.seed);
  r.with = "nn::CrossAttention";
  return r;
}
}  // namespace

std::vector<Claim> fusion_claims() {
  return {
      {"C35", "CT cannot tell active tumour from necrosis, PET is coarse; CT asking PET gets both", "both", ClaimCost::kTrained, ct_asks_pet},
      {"C36", "Co-attention links image and table both ways", "both ways", ClaimCost::kTrained, co_attention},
  };
}

}  // namespace fovea::recipes
