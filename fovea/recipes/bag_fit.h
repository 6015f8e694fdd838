#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "fovea/models/bag_network.h"
#include "fovea/train/instance_loss.h"

// How networks learn from bags: digits, tables of instances, slides.
namespace fovea::recipes {

/// Bags whose rows are fetched when they are needed: all slides of a study do not fit in memory together.
struct BagTask {
  std::function<torch::Tensor(int64_t bag)> rows;  // [n,features] or [n,1,28,28], n at least 1
  torch::Tensor labels;                            // [bags] int64

  int64_t bags() const { return labels.size(0); }
};

struct BagFitOptions {
  double learning_rate = 5e-4;
  double weight_decay = 1e-4;
  int64_t epochs = 20;
  int64_t patience = 0;          // epochs without a better validation loss before it ends; 0: never
  double average = 0.998;        // decay of the running average of the weights that is kept in their place; 0: none
  double instance_weight = 0.3;  // CLAM: share of the instance loss
  train::ClamInstanceOptions instances;
  uint64_t seed = 0;             // order of the bags
};

struct BagFit {
  int64_t best_epoch = 0, epochs = 0;
  double validation_loss = 0;
  std::vector<double> train_losses, validation_losses;  // of each epoch
};

/// Adam with beta 0.9 and 0.999, one bag a step, in a new order each epoch; the (averaged) weights of the epoch with the
/// lowest validation loss are kept, the last ones without validation bags.
/// Loss     one output: logistic; classes: cross-entropy, with CLAM's instance loss beside it
/// Errors   ArgumentError on a loss that is not finite
BagFit fit_bags(models::BagNetworkImpl& network, const BagTask& task, const std::vector<int64_t>& train, const std::vector<int64_t>& validation,
                const BagFitOptions& options, const std::function<void(const BagFit&)>& epoch_done = {});

/// The network's probabilities of one bag: [classes], two for one output.
torch::Tensor bag_probabilities(models::BagNetworkImpl& network, const torch::Tensor& rows);

/// offsets of one bag of n rows.
torch::Tensor one_bag(int64_t n);

/// Deals the numbers 0 ... labels - 1 into `folds` parts of like shares of each class; a bag's part depends on the seed.
std::vector<std::vector<int64_t>> stratified_folds(const torch::Tensor& labels, int64_t folds, uint64_t seed);

}  // namespace fovea::recipes
