#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "fovea/data/labelled_images.h"

// How much the learning rate matters with and without QK-norm: what `fovea check P8` and claim C29 report.
namespace fovea::recipes {

/// A small vision transformer on 28 x 28 images and how it is trained: AdamW 0.9 / 0.95 with a weight decay of 3 / steps
/// whatever the learning rate, clipping at 1, z-loss 1e-4, linear warm-up and cosine decay, as in Wortsman et al. 2024,
/// section 2 (there 1e5 steps of 1e-4 each). QK-norm is layer norm without gains: scores stay within sqrt(C).
struct SweepConfig {
  int64_t patch = 7, width = 64, heads = 1, layers = 4;
  int64_t steps = 400, batch = 16;
  double warmup = 0.05;                                     // share of the steps
  std::vector<double> learning_rates = {3e-3, 1e-2, 3e-2};  // the best one of so few steps, and up to ten times more
  int64_t seeds = 1;
  uint64_t first_seed = 0;
};

/// What `fovea check P8` trains in its quick form, and in its long one: 2000 steps at the learning rates of the paper.
SweepConfig quick_sweep(uint64_t first_seed);
SweepConfig full_sweep(uint64_t first_seed);
/// "4 layers of width 64, 100 steps of 32 images, learning rates 0.003 ... 0.3, 1 seed from 0".
std::string sweep_text(const SweepConfig& config);

struct SweepRun {
  bool qk_norm = false;
  double learning_rate = 0;
  uint64_t seed = 0;
  double loss = 0, accuracy = 0;                          // of test images; a loss that is not finite counts as infinite
  std::vector<std::pair<int64_t, double>> largest_score;  // step, largest |score| in any layer
};

struct LearningRateSweep {
  std::vector<SweepRun> runs;
  double first_loss = 0;  // of a guess: log(classes)

  /// Mean over the learning rates of min(loss, first loss) less the smallest of them, mean over the seeds.
  /// Source  Wortsman et al. 2024, arXiv:2309.14322, section 2.2
  double sensitivity(bool qk_norm) const;
  double best_accuracy(bool qk_norm) const;  // mean over the seeds
  double largest_score(bool qk_norm) const;  // of all runs and steps
};

/// Trains every (seed, learning rate) with and without QK-norm from the same weights on the same batches; two runs at a
/// time, each on one thread, so that nothing depends on the machine's threads.
LearningRateSweep sweep_learning_rates(const SweepConfig& config, const data::FashionMnist& images,
                                       const std::function<void(const SweepRun&)>& done = {});

/// QK-norm on what a trained network's layers make of test images: scores against centred dot products over
/// (tau sqrt(C)), tau = deviation(q) deviation(k) of each pair, gains left out.
struct ActivationTemperature {
  double identity = 0;               // largest difference, in float, over the bound sqrt(C) of scores
  std::vector<double> temperatures;  // mean tau of each layer and head
};
ActivationTemperature temperature_of_activations(const SweepConfig& config, const data::FashionMnist& images);

}  // namespace fovea::recipes
