// P8, normalising queries and keys: the implicit temperature, scores that stay in range, and training that forgives the
// learning rate.
#include "fovea/recipes/check.h"
#include "fovea/recipes/layer_experiments.h"
#include "fovea/recipes/learning_rate_sweep.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

std::string curve_text(const SweepRun& run) {
  std::string line;
  const size_t points = run.largest_score.size(), step = std::max<size_t>(1, points / 6);
  for (size_t i = 0; i < points; i += step)
    line += printed("%s%.3g", line.empty() ? "" : ", ", run.largest_score[i].second);
  return line;
}
}  // namespace

CheckResult check_qk_norm(const CheckOptions& options) {
  CheckResult result;
  const data::FashionMnist images = data::read_fashion_mnist();  // before anything is computed: it may be missing

  const ImplicitTemperature t = implicit_temperature(64, options.seed);
  result.at_most("score against the dot product over tau sqrt(C), tau = sigma_q sigma_k, largest difference in double", t.identity, 1e-12);
  result.at_most("score against sqrt(C) corr(q, k)", t.correlation, 1e-12);
  result.at_most("largest |score| over random, aligned, opposite, constant and huge inputs, C = 64", t.largest_score, t.bound * (1 + 1e-12));
  result.at_most("inputs x 100: largest change of a score", t.change, 1e-6);

  const SweepConfig config = options.full ? full_sweep(options.seed) : quick_sweep(options.seed);
  const ActivationTemperature a = temperature_of_activations(config, images);
  result.at_most("the first identity on what a trained network makes of images, in float, relative to sqrt(C)", a.identity, 1e-5);
  std::string temperatures;
  for (const double tau : a.temperatures) temperatures += printed("%s%.3g", temperatures.empty() ? "" : ", ", tau);
  result.notes.push_back("implicit temperature of a network trained without QK-norm, mean by layer and head: " + temperatures);

  const LearningRateSweep sweep = sweep_learning_rates(config, images);
  const double without = sweep.sensitivity(false), with = sweep.sensitivity(true);
  // A factor of 3 is asked of the long form; 400 steps, twice, tell no more than the sign.
  result.at_most("learning-rate sensitivity with QK-norm over that without", with / without, options.full ? 1.0 / 3 : 1);
  result.at_least("learning-rate sensitivity without: the control must suffer", without, 0.1);
  result.at_least("best accuracy with QK-norm less that without", sweep.best_accuracy(true) - sweep.best_accuracy(false), -0.02);
  result.notes.push_back(sweep_text(config) + printed("; sensitivity %.3f with, %.3f without; best accuracy %.3f and %.3f", with, without,
                                                      sweep.best_accuracy(true), sweep.best_accuracy(false)));
  for (const SweepRun& run : sweep.runs)
    result.notes.push_back(printed("%s QK-norm, learning rate %g, seed %llu: loss %.3f, accuracy %.3f; largest score by step: ",
                                   run.qk_norm ? "with" : "without", run.learning_rate, static_cast<unsigned long long>(run.seed),
                                   run.loss, run.accuracy) + curve_text(run));
  return result;
}

}  // namespace fovea::recipes
