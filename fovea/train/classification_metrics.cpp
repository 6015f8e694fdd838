#include "fovea/train/classification_metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "fovea/core/error.h"

namespace fovea::train {

double roc_auc(const std::vector<double>& score, const std::vector<bool>& positive) {
  if (score.size() != positive.size())
    throw ArgumentError("roc_auc: " + std::to_string(score.size()) + " scores for " + std::to_string(positive.size()) + " labels");
  for (const double s : score)
    if (std::isnan(s)) throw ArgumentError("roc_auc: a score is not a number");
  std::vector<size_t> order(score.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return score[a] < score[b]; });
  double ranks = 0, positives = 0;  // sum of the positives' mid-ranks from 1
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin;
    while (end < order.size() && score[order[end]] == score[order[begin]]) ++end;
    for (size_t i = begin; i < end; ++i)
      if (positive[order[i]]) ranks += double(begin + 1 + end) / 2, positives += 1;
    begin = end;
  }
  const double negatives = double(score.size()) - positives;
  if (positives == 0 || negatives == 0) return std::numeric_limits<double>::quiet_NaN();
  return (ranks - positives * (positives + 1) / 2) / (positives * negatives);
}

}  // namespace fovea::train
