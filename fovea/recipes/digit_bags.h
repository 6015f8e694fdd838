#pragma once
#include <string>
#include <vector>

#include "fovea/data/labelled_images.h"
#include "fovea/recipes/bag_fit.h"

// Bags of digits, positive if a 9 is among them: who finds it without being told which one it is? Row A2, claim C31.
namespace fovea::recipes {

struct DigitBagOptions {
  int64_t bags = 100;
  double mean_length = 10, deviation = 2;  // of the normal distribution that a bag's length is rounded from; at least 1
  int64_t target = 9;
};

/// Bags drawn with replacement from a pool, alternately positive and negative.
struct DigitBags {
  torch::Tensor pool;     // [K,1,28,28]
  torch::Tensor places;   // [N] int64: rows of the pool, bag after bag
  torch::Tensor offsets;  // [bags+1] int64
  torch::Tensor labels;   // [bags] int64: 1 where the target is among the digits
  torch::Tensor tells;    // [N] bool: the target itself

  torch::Tensor rows(int64_t bag) const { return pool.index_select(0, places.slice(0, offsets[bag].item<int64_t>(), offsets[bag + 1].item<int64_t>())); }
  BagTask task() const;
};

/// A positive bag is drawn anew until it holds the target, a negative one is drawn from the other digits. Same seed, same
/// bags.
DigitBags draw_digit_bags(const data::LabelledImages& pool, const DigitBagOptions& options, uint64_t seed);

struct DigitBagRun {
  models::BagPooling pooling = models::BagPooling::kGated;
  DigitBagOptions bags;
  uint64_t seed = 0;

  double auc = 0;           // of test bags
  double instance_auc = 0;  // of the weights within positive test bags, mean over those with both kinds of digits
  double found = 0;         // share of the positive test bags whose heaviest digit is a target
};
std::string name_of(models::BagPooling pooling);

/// Trains each run on its own bags for 20 epochs (Adam 5e-4, one bag a step), as the authors' code does. Unlike it: weight
/// decay 1e-3 for 1e-4, chosen on seeds 100 to 105, and a running average of the weights (0.998) is kept. Tests all of one
/// seed and length on the same 500 bags of test digits.
/// Cost     about 15 s a run of 100 bags on one thread, growing with bags and length; two run at a time
void learn_digit_bags(std::vector<DigitBagRun>& runs, const data::LabelledImages& train, const data::LabelledImages& test);

/// A trained network, for looking at single bags.
models::BagNetwork learn_digit_bags(DigitBagRun& run, const data::LabelledImages& train, const data::LabelledImages& test);

}  // namespace fovea::recipes
