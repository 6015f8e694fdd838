// C41 and C49: the claims on masked autoencoding that have to be learnt.
#include <algorithm>

#include "fovea/io/data_folder.h"
#include "fovea/recipes/claims.h"
#include "fovea/recipes/hidden_patches.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

std::string no_scans() { return io::find_data("Task04_Hippocampus") ? "" : "needs the Decathlon's Task04_Hippocampus in the data folder"; }

ClaimResult long_range(const ClaimOptions& options) {
  const ScanSet scans = hippocampus_scans().value();
  auto network = learn_to_rebuild(scans, {}, options.seed);
  ClaimResult r;
  double worst = 0, before = 0;
  bool grows = true;
  for (const double ratio : {0.75, 0.9, 0.97}) {
    const auto found = rebuild(network, scans, ratio, options.seed);
    for (const auto& e : {found.all, found.lonely})
      if (e.patches >= 1) worst = std::max(worst, e.network / std::min({e.patch_mean, e.nearest, e.trilinear}));
    grows &= found.distance_mm > before;
    before = found.distance_mm;
    r.figures.emplace_back(printed("distance_mm_%.0f", 100 * ratio), found.distance_mm);
    r.figures.emplace_back(printed("over_scans_mean_%.0f", 100 * ratio), found.all.network / found.all.atlas);
  }
  r.figures.emplace_back("over_best_local", worst);
  r.verdict = worst < 1 && grows ? Verdict::kHolds : Verdict::kFalse;
  r.computed = printed("hidden patches read over %.1f, %.1f, %.1f mm at .75, .90, .97; error at most %.2f of the best of mean, nearest and trilinear, with and without visible "
                       "neighbours; %.2f, %.2f, %.2f of that of the training scans' mean",
                       r.figure("distance_mm_75"), r.figure("distance_mm_90"), r.figure("distance_mm_97"), worst, r.figure("over_scans_mean_75"), r.figure("over_scans_mean_90"),
                       r.figure("over_scans_mean_97"));
  r.inputs = printed("%lld hippocampus scans, %lld others tested, seed %llu", static_cast<long long>(scans.train.size(0)), static_cast<long long>(scans.test.size(0)),
                     static_cast<unsigned long long>(options.seed));
  r.with = "models::MaskedAutoencoder";
  return r;
}

ClaimResult anatomy_without_labels(const ClaimOptions& options) {
  const ScanSet scans = hippocampus_scans().value();
  constexpr int kSeeds = 5;
  int better = 0;
  ClaimResult r;
  std::string pairs;
  for (int s = 0; s < kSeeds; ++s) {
    const uint64_t seed = options.seed + uint64_t(s);
    const auto pretrained = learn_to_rebuild(scans, {}, seed);
    const double with = learn_labels(scans, pretrained.get(), {}, seed), without = learn_labels(scans, nullptr, {}, seed);
    better += with > without;
    pairs += printed("%s%.3f / %.3f", s ? ", " : "", with, without);
    r.figures.emplace_back(printed("gain_%d", s), with - without);
  }
  r.figures.emplace_back("better", better);
  r.verdict = better == kSeeds ? Verdict::kHolds : better == 0 ? Verdict::kFalse : Verdict::kHoldsIf;
  r.condition = printed("the draw is kind: %d of %d seeds", better, kSeeds);
  r.computed = "Dice of two structures from 5 labelled slices, pretrained / from scratch: " + pairs;
  r.inputs = printed("%lld hippocampus scans without labels, 5 labelled slices, %lld scans tested, seeds %llu to %llu", static_cast<long long>(scans.train.size(0)),
                     static_cast<long long>(scans.test.size(0)), static_cast<unsigned long long>(options.seed), static_cast<unsigned long long>(options.seed + kSeeds - 1));
  r.with = "models::MaskedAutoencoder";
  return r;
}
}  // namespace

std::vector<Claim> autoencoder_claims() {
  using enum ClaimCost;
  return {{"C41", "Hiding most blocks forces long-range dependencies", "forces", kTrained, long_range, no_scans},
          {"C49", "MAE learns anatomy without labels", "learns it", kTrained, anatomy_without_labels, no_scans}};
}

}  // namespace fovea::recipes
