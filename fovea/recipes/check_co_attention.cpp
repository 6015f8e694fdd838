// A6, co-attention of scan and table: MCAT's loss, and a question that only both together answer.
#include <algorithm>
#include <cmath>

#include "fovea/recipes/check.h"
#include "fovea/recipes/side_and_flag.h"
#include "fovea/report/text.h"
#include "fovea/train/survival_loss.h"
#include "fovea/train/survival_metrics.h"

namespace fovea::recipes {

namespace {
// The negative log-likelihood as MCAT writes it (alpha = 0, c = 1 censored), one patient after the other.
double nll_difference(uint64_t seed) {
  constexpr int64_t kPatients = 64, kIntervals = 4;
  auto generator = at::detail::createCPUGenerator(seed);
  const auto logits = torch::randn({kPatients, kIntervals}, generator, torch::kFloat64);
  const auto interval = torch::randint(kIntervals, {kPatients}, generator, torch::TensorOptions(torch::kInt64));
  const auto event = torch::rand({kPatients}, generator, torch::TensorOptions(torch::kFloat64)) < 0.5;
  double sum = 0;
  for (int64_t i = 0; i < kPatients; ++i) {
    double survival = 1, before = 1, hazard = 0;  // S[0] = 1, S[k+1] = S[k] (1 - h[k])
    for (int64_t k = 0; k <= interval[i].item<int64_t>(); ++k) {
      before = survival;
      hazard = 1 / (1 + std::exp(-logits[i][k].item<double>()));
      survival *= 1 - hazard;
    }
    sum -= event[i].item<bool>() ? std::log(before) + std::log(hazard) : std::log(survival);
  }
  return std::abs(sum / kPatients - train::logistic_hazard_loss(logits, interval, event).item<double>());
}
}  // namespace

CheckResult check_co_attention(const CheckOptions& options) {
  const std::vector<SideFlagNetwork> networks = {SideFlagNetwork::kTwoWay,     SideFlagNetwork::kParallel,
                                                 SideFlagNetwork::kImageAlone, SideFlagNetwork::kTableAlone,
                                                 SideFlagNetwork::kLate,       SideFlagNetwork::kLateHidden};
  CheckResult result;
  result.at_most("MCAT's negative log-likelihood against logistic hazard: difference", nll_difference(options.seed), 1e-12);

  const int seeds = options.full ? 5 : 1;
  std::vector<SideFlagScore> worst(networks.size());
  SideFlagAttention least;
  double least_gain = INFINITY;  // lower ends of the intervals
  for (int i = 0; i < seeds; ++i) {
    const SideFlagResult found = learn_side_and_flag(networks, options.seed + i);
    std::string line = "side XOR flag (simulated), seed " + std::to_string(options.seed + i) + ":";
    for (size_t n = 0; n < networks.size(); ++n) {
      const SideFlagScore& score = found.scores[n];
      line += report::printed(" %s %.3f (%lld parameters);", name_of(networks[n]).c_str(), score.accuracy,
                              static_cast<long long>(score.parameters));
      if (i == 0 || (score.accuracy < worst[n].accuracy) == joins_both(networks[n])) worst[n] = score;
    }
    line.pop_back();
    result.notes.push_back(line);
    const SideFlagAttention& a = *found.attention;
    result.notes.push_back(report::printed("share of the flag's attention on the lesion's side: %.3f with flag 0, %.3f with flag 1; %.3f before training",
                                           a.by_flag[0], a.by_flag[1], a.before_training));
    for (size_t n = 1; n < networks.size(); ++n) {
      const auto &ours = found.scores[0].right, &other = found.scores[n].right;
      const auto gain = train::bootstrap_interval(ours.size(), [&](const std::vector<size_t>& patients) {
        double sum = 0;
        for (const size_t p : patients) sum += ours[p] - other[p];
        return sum / double(patients.size());
      });
      result.notes.push_back(report::printed("accuracy of the two-way form less that of %s, seed %d: %.3f, 95 %% of resamples of the patients %.3f to %.3f",
                                             name_of(networks[n]).c_str(), int(options.seed) + i, found.scores[0].accuracy - found.scores[n].accuracy, gain.low, gain.high));
      if (!joins_both(networks[n])) least_gain = std::min(least_gain, gain.low);
    }
    if (i == 0) least = a;
    least.on_lesion_side = std::min(least.on_lesion_side, a.on_lesion_side);
    least.points_to_side = std::min(least.points_to_side, a.points_to_side);
    least.lesion_on_flag = std::min(least.lesion_on_flag, a.lesion_on_flag);
    least.doubt_without_flag = std::max(least.doubt_without_flag, a.doubt_without_flag);
    least.doubt_without_image = std::max(least.doubt_without_image, a.doubt_without_image);
  }
  for (size_t n = 0; n < networks.size(); ++n) {
    const std::string name = "side XOR flag, " + name_of(networks[n]);
    if (networks[n] == SideFlagNetwork::kLateHidden) continue;  // a note: it joins them too
    if (joins_both(networks[n])) {
      result.at_least(name + ": accuracy, worst seed", worst[n].accuracy, 0.95);
    } else {
      result.at_most(name + ": accuracy, best seed (chance 0.5)", worst[n].accuracy, 0.6);
      result.at_least(name + ": cross-entropy of that seed (chance 0.693 nats)", worst[n].cross_entropy_nats, 0.68);
    }
  }
  result.at_least("accuracy of the two-way form less any of these three: lower end of the paired interval, worst seed", least_gain, 0.3);
  result.at_least("attention of the flag on the scan: share on the lesion's side, worst seed (chance 0.5)", least.on_lesion_side, 0.8);
  result.at_least("patients where it points to that side, worst seed (chance 0.5)", least.points_to_side, 0.95);
  result.at_most("flag missing: mean |p - 1/2|, worst seed (0: says that it does not know)", least.doubt_without_flag, 0.1);
  result.at_most("scan missing: mean |p - 1/2|, worst seed", least.doubt_without_image, 0.1);
  result.notes.push_back(report::printed(
      "attention of the tokens on the lesion's side on the flag, one of 4 features: %.3f", least.lesion_on_flag));
  result.notes.push_back("a hidden layer behind late concatenation joins both sides as well, without saying where it looked");
  result.notes.push_back("MCAT's released risks (C-index of 5 TCGA cohorts) are the user's to supply and are not here");
  return result;
}

}  // namespace fovea::recipes
