#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fovea/recipes/bag_fit.h"

// Tables of instances (`scripts/data mil`): one row a line, the bag it belongs to, the bag's label.
namespace fovea::recipes {

struct BagTable {
  torch::Tensor rows;     // [N,features] f32
  torch::Tensor offsets;  // [bags+1]
  torch::Tensor labels;   // [bags] int64, 0 or 1
};

/// Columns label, bag, then features. A bag's rows need not follow each other.
/// Errors   IoError: a label that is not 0 or 1 or differs within a bag, a feature that is no finite number, no feature
BagTable read_bag_table(const std::filesystem::path& path);

struct CrossValidation {
  double accuracy = 0, auc = 0;  // of all bags, each judged by the fold that did not see it
};

/// Stratified 10-fold cross-validation; features are put on the training folds' mean and deviation. Networks are
/// 256-128-64 (ReLU, dropout 1/2) before the pooling, attention of 64.
/// Cost     some 10 s on one thread for 92 bags
CrossValidation cross_validate(const BagTable& table, models::BagPooling pooling, uint64_t seed);

/// The same with logistic regression on the mean of a bag's features: the simplest method.
CrossValidation cross_validate_means(const BagTable& table, uint64_t seed);

}  // namespace fovea::recipes
