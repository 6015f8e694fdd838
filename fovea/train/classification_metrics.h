#pragma once
#include <cstdint>
#include <vector>

namespace fovea::train {

/// Area under the ROC curve: how often a positive has the higher score than a negative; equal scores count half.
/// nan without positives or negatives. Cost O(n log n).
/// Errors  ArgumentError on unequal lengths or a score that is not a number.
/// Source  Mann and Whitney 1947; Hanley and McNeil 1982
double roc_auc(const std::vector<double>& score, const std::vector<bool>& positive);

}  // namespace fovea::train
