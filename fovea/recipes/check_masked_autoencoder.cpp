// A9, masked autoencoder: what is hidden, what it costs, and what is rebuilt of real scans.
#include <cmath>

#include "fovea/recipes/check.h"
#include "fovea/recipes/hidden_patches.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

void check_masks(CheckResult& result, const CheckOptions& options) {
  struct Row {
    double ratio, kept, six, all, pairs;
  };
  double p_difference = 0, errors = 0;
  for (const Row& row : {Row{0.75, 1024, .178, .0005, 16}, Row{0.90, 409, .532, .064, 100}, Row{0.95, 204, .736, .264, 403}, Row{0.97, 122, .834, .454, 1127}}) {
    const double kept = double(data::kept_patches(4096, row.ratio));
    result.equal(printed("patches of 4096 that stay at %.2f", row.ratio), kept, row.kept);
    result.equal(printed("pairs that the encoder's attention saves at %.2f, a factor", row.ratio), std::round(4096.0 * 4096 / (kept * kept)), row.pairs);
    const auto found = hidden_neighbours(row.ratio, options.full ? 4000 : 400, options.seed);
    p_difference = std::max({p_difference, std::abs(found.exact[0] - row.six), std::abs(found.exact[1] - row.all)});
    errors = std::max(errors, found.standard_errors());
  }
  result.at_most("probability that 6, or 26, neighbours of a hidden block are hidden: largest difference from the table", p_difference, 0.0006);
  result.at_most("the same by drawn masks: largest difference in standard errors, 12 figures", errors, 3);
}

void check_cost(CheckResult& result, const CheckOptions& options) {
  const int repeats = options.full ? 8 : 3;
  const double all = encoder_seconds(0, repeats);
  std::string line = "time of an encoder step, 4096 patches, width 192, forward and backward, against none hidden (in brackets: multiplications):";
  double worst = 0;
  for (const double ratio : {0.75, 0.9, 0.97}) {
    const double took = encoder_seconds(ratio, repeats) / all, predicted = encoder_multiplications(ratio) / encoder_multiplications(0);
    worst = std::max(worst, took / predicted);
    line += printed(" %.2f at %.4f (%.4f);", ratio, took, predicted);
  }
  line.pop_back();
  result.notes.push_back(line);
  result.at_most("time of an encoder step at .75, .90, .97 over what its multiplications predict, largest", worst, 2);
}

// Figures of one set of scans; `network` is what learnt from seed options.seed.
models::MaskedAutoencoder check_rebuilding(CheckResult& result, const CheckOptions& options, const ScanSet& scans) {
  const int seeds = options.full ? 5 : 1;
  HidingOptions hiding;
  if (options.full) hiding.steps *= 3;
  models::MaskedAutoencoder first{nullptr};
  double worst_all = -INFINITY, worst_lonely = -INFINITY, worst_atlas = -INFINITY, growth = INFINITY;
  for (int s = 0; s < seeds; ++s) {
    const uint64_t seed = options.seed + uint64_t(s);
    auto network = learn_to_rebuild(scans, hiding, seed);
    double before = 0;
    for (const double ratio : {0.75, 0.9, 0.97}) {
      const auto r = rebuild(network, scans, ratio, seed);
      const auto over_local = [](const RebuildErrors& e) { return e.network / std::min({e.patch_mean, e.nearest, e.trilinear}); };
      worst_all = std::max(worst_all, over_local(r.all));
      if (r.lonely.patches >= 1) worst_lonely = std::max(worst_lonely, over_local(r.lonely));
      worst_atlas = std::max({worst_atlas, r.all.network / r.all.atlas});
      growth = std::min(growth, r.distance_mm - before);
      before = r.distance_mm;
      const auto line = [&](const char* group, const RebuildErrors& e) {
        return printed("%s, seed %llu, %.2f hidden, %s (%.1f patches a scan): network %.3f; mean %.3f, nearest %.3f, trilinear %.3f, mean of the training scans %.3f",
                       scans.name.c_str(), static_cast<unsigned long long>(seed), ratio, group, e.patches, e.network, e.patch_mean, e.nearest, e.trilinear, e.atlas);
      };
      result.notes.push_back(line("all hidden patches", r.all));
      if (r.lonely.patches >= 1) result.notes.push_back(line("those without visible neighbour", r.lonely));
      result.notes.push_back(printed("%s, seed %llu, %.2f hidden: hidden patches read over %.1f mm (equal weights: %.1f mm)", scans.name.c_str(),
                                     static_cast<unsigned long long>(seed), ratio, r.distance_mm, r.uniform_mm));
    }
    if (!first) first = network;
  }
  result.at_most(scans.name + ", .75, .90, .97 hidden: error over the best of mean, nearest and trilinear, largest", worst_all, 0.999);
  result.at_most(scans.name + ", hidden patches without visible neighbour: the same", worst_lonely, 0.999);
  result.at_most(scans.name + ": error over that of the training scans' mean, largest", worst_atlas, 0.999);
  result.at_least(scans.name + ": distance that hidden patches read over, smallest growth from .75 to .90 to .97 (mm)", growth, 1e-3);
  return first;
}

void check_labels(CheckResult& result, const CheckOptions& options, const ScanSet& scans, const models::MaskedAutoencoder& pretrained) {
  const int seeds = options.full ? 5 : 1;
  double least = INFINITY;
  std::string line = scans.name + ", 5 labelled slices, Dice of " + std::to_string(scans.test.size(0)) + " test scans, pretrained against from scratch:";
  for (int s = 0; s < seeds; ++s) {
    const uint64_t seed = options.seed + uint64_t(s);
    const double with = learn_labels(scans, pretrained.get(), {}, seed), without = learn_labels(scans, nullptr, {}, seed);
    least = std::min(least, with - without);
    line += printed(" %.3f / %.3f;", with, without);
  }
  line.pop_back();
  result.notes.push_back(line);
  result.at_least("gain in Dice by pretraining without labels, 5 labelled slices, least of " + std::to_string(seeds) + " seed(s)", least, 1e-3);
}
}  // namespace

CheckResult check_masked_autoencoder(const CheckOptions& options) {
  CheckResult result;
  check_masks(result, options);
  check_cost(result, options);
  const auto hippocampus = hippocampus_scans();
  if (hippocampus) {
    const auto network = check_rebuilding(result, options, *hippocampus);
    check_labels(result, options, *hippocampus, network);
  } else {
    result.notes.push_back("hippocampus: not there; put the Decathlon's Task04_Hippocampus into the data folder");
  }
  if (hippocampus && !options.full) return result;
  if (const auto heads = head_scans()) check_rebuilding(result, options, *heads);
  else result.notes.push_back("heads: not there; scripts/data mni152 and Debian's mricron-data bring them");
  return result;
}

}  // namespace fovea::recipes
