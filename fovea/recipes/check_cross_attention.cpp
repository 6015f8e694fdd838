// A5, CT asks PET on grids of their own: against concatenation after resampling, each alone, a PET that is moved, and
// none.
#include <algorithm>
#include <cmath>

#include "fovea/recipes/check.h"
#include "fovea/recipes/ct_asks_pet.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

CheckResult check_cross_attention(const CheckOptions& options) {
  const std::vector<CtPetNetwork> networks = {CtPetNetwork::kCrossAttention, CtPetNetwork::kConcatenation,
                                              CtPetNetwork::kCtAlone, CtPetNetwork::kPetAlone};
  CheckResult result;
  const int seeds = options.full ? 5 : 1;
  // Worst of all seeds. Gains are cross-attention's over the best of the other three on the same pairs.
  double dice_gain = INFINITY, hd95_gain_mm = INFINITY, ct_auc = 0, fall_back = 0, least_slope = INFINITY, most_slope = -INFINITY;
  for (int i = 0; i < seeds; ++i) {
    const CtPetResult found = learn_ct_pet(networks, options.seed + i);
    std::string line = "CT asks PET (simulated), seed " + std::to_string(options.seed + i) + ":";
    const CtPetScore& asks = found.scores[0];
    for (size_t n = 0; n < networks.size(); ++n) {
      const CtPetScore& score = found.scores[n];
      line += report::printed(" %s Dice %.3f, HD95 %.2f mm, AUC %.3f (%lld parameters);", name_of(networks[n]).c_str(),
                              score.dice, score.hd95_mm, score.auc, static_cast<long long>(score.parameters));
      if (n == 0) continue;
      dice_gain = std::min(dice_gain, asks.dice - score.dice);
      hd95_gain_mm = std::min(hd95_gain_mm, score.hd95_mm - asks.hd95_mm);
    }
    const PetAttention& looked = *found.attention;
    line += report::printed(" slope %.3f; without PET Dice %.3f", looked.slope, asks.dice_without_pet);
    result.notes.push_back(line);
    ct_auc = std::max(ct_auc, std::abs(found.scores[2].auc - 0.5));
    fall_back = std::max(fall_back, std::abs(asks.dice_without_pet - found.scores[2].dice));
    least_slope = std::min(least_slope, looked.slope), most_slope = std::max(most_slope, looked.slope);
    result.notes.push_back(report::printed("share of a viable voxel's attention that goes to the PET: %.3f; with the PET missing %.3f",
                                           looked.gate, looked.gate_without_pet));
  }
  result.at_most("CT alone, viable against necrotic: distance of the AUC from 0.5, worst seed", ct_auc, 0.1);
  result.at_least("Dice of cross-attention less the best of the other three, worst seed", dice_gain, 1e-9);
  result.at_least("HD95 of the best of the other three less that of cross-attention, mm, worst seed", hd95_gain_mm, 1e-9);
  result.at_least("PET moved by -3 ... 3 voxels: slope of the attention's centroid, smallest", least_slope, 0.9);
  result.at_most("the same, largest", most_slope, 1.1);
  result.at_most("PET missing: Dice against that of CT alone, largest difference", fall_back, 0.01);
  return result;
}

}  // namespace fovea::recipes
