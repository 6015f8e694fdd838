#include "fovea/train/classification_metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"

namespace fovea::train {
namespace {

TEST(RocAuc, CountsPairsInWhichThePositiveIsAheadAndTiesHalf) {
  EXPECT_DOUBLE_EQ(roc_auc({0.1, 0.4, 0.35, 0.8}, {false, false, true, true}), 0.75);
  EXPECT_DOUBLE_EQ(roc_auc({1, 1, 1}, {true, false, true}), 0.5);
  EXPECT_TRUE(std::isnan(roc_auc({1, 2}, {true, true})));
  EXPECT_THROW(roc_auc({1}, {true, false}), ArgumentError);
  EXPECT_THROW(roc_auc({std::nan(""), 1}, {true, false}), ArgumentError);
}

TEST(RocAuc, EqualsTheCountOfAllPairsOnRandomScoresWithTies) {
  Rng rng(3, 0, 0);
  std::vector<double> score;
  std::vector<bool> positive;
  for (int i = 0; i < 300; ++i) score.push_back(double(rng.below(20))), positive.push_back(rng.chance(0.3f));
  double ahead = 0, pairs = 0;
  for (int i = 0; i < 300; ++i)
    for (int j = 0; j < 300; ++j)
      if (positive[i] && !positive[j]) pairs += 1, ahead += score[i] > score[j] ? 1 : score[i] == score[j] ? 0.5 : 0;
  EXPECT_NEAR(roc_auc(score, positive), ahead / pairs, 1e-12);
}

}  // namespace
}  // namespace fovea::train
