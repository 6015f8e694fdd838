#pragma once
#include <torch/types.h>

#include <vector>

#include "fovea/train/adamw.h"

namespace fovea::train {

/// Exponential running average of the weights, which generalises better than the last weights on small data sets.
///   a <- a + (1 - d) (w - a),  d = min(decay, (1 + updates) / (10 + updates)): short memory at first
/// decay 0: none, all functions do nothing.
class WeightAverage {
 public:
  WeightAverage(const std::vector<NamedParameter>& parameters, double decay);

  bool enabled() const { return decay_ > 0; }
  /// After optimizer update number `updates` (from 1).
  void update(int64_t updates);
  /// Exchanges the average with the weights of the network, in place; a second call restores both.
  void swap();
  /// In the order of the parameters; empty when not enabled.
  std::vector<torch::Tensor>& values() { return average_; }

 private:
  std::vector<NamedParameter> parameters_;
  std::vector<torch::Tensor> average_;
  double decay_;
};

/// The average stands in for the weights while this lives: for validation.
class AveragedWeights {
 public:
  explicit AveragedWeights(WeightAverage& average) : average_(average) { average_.swap(); }
  ~AveragedWeights() { average_.swap(); }
  AveragedWeights(const AveragedWeights&) = delete;
  AveragedWeights& operator=(const AveragedWeights&) = delete;

 private:
  WeightAverage& average_;
};

}  // namespace fovea::train
