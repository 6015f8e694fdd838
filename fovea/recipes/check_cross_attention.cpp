// A5, CT asks PET on grids of their own: against concatenation after resampling, each alone, a PET that is moved, none,
// and a real study.
#include <algorithm>
#include <cmath>
#include <filesystem>

#include "fovea/io/data_folder.h"
#include "fovea/recipes/check.h"
#include "fovea/recipes/ct_asks_pet.h"
#include "fovea/recipes/ct_pet_study.h"
#include "fovea/report/text.h"
#include "fovea/train/survival_metrics.h"

namespace fovea::recipes {

namespace {
using report::printed;

// 95 % of resamples of the pairs: mean of first less second.
train::BootstrapInterval gain_interval(const std::vector<double>& first, const std::vector<double>& second) {
  return train::bootstrap_interval(first.size(), [&](const std::vector<size_t>& drawn) {
    double sum = 0;
    for (const size_t i : drawn) sum += first[i] - second[i];
    return sum / double(drawn.size());
  });
}

std::optional<CtPetStudy> real_study(CheckResult& result) {
  const auto folder = io::data_folder() / "tcia-acrin-ctpet";
  if (!std::filesystem::is_directory(folder / "CT") || !std::filesystem::is_directory(folder / "PT_AC")) {
    result.notes.push_back("real PET/CT study not tried: " + folder.string() + " has no folders CT and PT_AC (ACRIN-NSCLC-FDG-PET-042)");
    return {};
  }
  return read_ct_pet_study(folder, kRightHilum);
}

void add_study(CheckResult& result, const CtPetStudy& study, const StudyAttention& found) {
  const auto beside = (found.attended_mm - found.asking_mm).norm(2, 1);
  result.notes.push_back(printed("real study (ACRIN-NSCLC-FDG-PET-042), network trained on simulated pairs: %lld voxels of the right hilar mass "
                                 "ask, largest SUV there %.1f; %.3f of their attention goes to the PET, where they read SUV %.1f, on average %.1f mm "
                                 "from themselves",
                                 static_cast<long long>(study.voxels.numel()), study.pet.max().item<double>(), found.gate, found.attended_suv,
                                 beside.mean().item<double>()));
  result.at_least("real study: slope of the attention's centroid when the PET's affine is shifted by up to 12 mm", found.slope, 0.9);
  result.at_most("the same", found.slope, 1.1);
  result.at_most("real study: both affines shifted, what the centroid changes by, mm", found.moved_together_mm, 1e-3);
  result.at_most("real study: attention on a PET whose grid lies a metre away", found.gate_elsewhere, 1e-6);
}
}  // namespace

CheckResult check_cross_attention(const CheckOptions& options) {
  const std::vector<CtPetNetwork> networks = {CtPetNetwork::kCrossAttention, CtPetNetwork::kConcatenation,
                                              CtPetNetwork::kCtAlone, CtPetNetwork::kPetAlone};
  CheckResult result;
  const auto study = real_study(result);
  const int seeds = options.full ? 5 : 1;
  // Worst of all seeds. Gains are cross-attention's over the best of the other three on the same pairs.
  double dice_gain = INFINITY, hd95_gain_mm = INFINITY, ct_auc = 0, fall_back = 0, least_slope = INFINITY, most_slope = -INFINITY;
  double dice_low = INFINITY, hd95_low_mm = INFINITY;
  for (int i = 0; i < seeds; ++i) {
    const CtPetResult found = learn_ct_pet(networks, options.seed + i, kCtPetSteps, 2, kSharpen, study && i == 0 ? &*study : nullptr);
    std::string line = "CT asks PET (simulated), seed " + std::to_string(options.seed + i) + ":", gains = "gain over";
    const CtPetScore& asks = found.scores[0];
    for (size_t n = 0; n < networks.size(); ++n) {
      const CtPetScore& score = found.scores[n];
      line += printed(" %s Dice %.3f, HD95 %.2f mm, AUC %.3f (%lld parameters);", name_of(networks[n]).c_str(),
                      score.dice, score.hd95_mm, score.auc, static_cast<long long>(score.parameters));
      if (n == 0) continue;
      dice_gain = std::min(dice_gain, asks.dice - score.dice);
      hd95_gain_mm = std::min(hd95_gain_mm, score.hd95_mm - asks.hd95_mm);
      const auto dice = gain_interval(asks.dices, score.dices), hd95 = gain_interval(score.hd95s_mm, asks.hd95s_mm);
      dice_low = std::min(dice_low, dice.low), hd95_low_mm = std::min(hd95_low_mm, hd95.low);
      gains += printed(" %s: Dice %.3f [%.3f, %.3f], HD95 %.2f [%.2f, %.2f] mm;", name_of(networks[n]).c_str(), asks.dice - score.dice,
                       dice.low, dice.high, score.hd95_mm - asks.hd95_mm, hd95.low, hd95.high);
    }
    const PetAttention& looked = *found.attention;
    line += printed(" slope %.3f; without PET Dice %.3f", looked.slope, asks.dice_without_pet);
    result.notes.push_back(line);
    gains.pop_back();
    result.notes.push_back(gains + " (95 % of resamples of the same 1024 pairs)");
    ct_auc = std::max(ct_auc, std::abs(found.scores[2].auc - 0.5));
    fall_back = std::max(fall_back, std::abs(asks.dice_without_pet - found.scores[2].dice));
    least_slope = std::min(least_slope, looked.slope), most_slope = std::max(most_slope, looked.slope);
    result.notes.push_back(printed("share of a viable voxel's attention that goes to the PET: %.3f; with the PET missing %.3f",
                                   looked.gate, looked.gate_without_pet));
    if (found.study) add_study(result, *study, *found.study);
    if (options.full) {
      const CtPetResult blunt = learn_ct_pet({CtPetNetwork::kCrossAttention}, options.seed + i, kCtPetSteps, 2, /*sharpen=*/0);
      result.notes.push_back(printed("the same without a weight on the attention's entropy: Dice %.3f, HD95 %.2f mm, slope %.3f",
                                     blunt.scores[0].dice, blunt.scores[0].hd95_mm, blunt.attention->slope));
    }
  }
  result.at_most("CT alone, viable against necrotic: distance of the AUC from 0.5, worst seed", ct_auc, 0.1);
  result.at_least("Dice of cross-attention less the best of the other three, worst seed", dice_gain, 1e-9);
  result.at_least("the same, lower end of the interval over pairs", dice_low, 1e-9);
  result.at_least("HD95 of the best of the other three less that of cross-attention, mm, worst seed", hd95_gain_mm, 1e-9);
  result.at_least("the same, lower end of the interval over pairs", hd95_low_mm, 1e-9);
  result.at_least("PET moved by -3 ... 3 voxels: slope of the attention's centroid, smallest", least_slope, 0.9);
  result.at_most("the same, largest", most_slope, 1.1);
  result.at_most("PET missing: Dice against that of CT alone, largest difference", fall_back, 0.01);
  return result;
}

}  // namespace fovea::recipes
