// P1, scaled dot-product attention: equal to its definition, what the scale is for, softmax as a budget, and memory.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "fovea/recipes/check.h"
#include "fovea/recipes/score_experiments.h"

namespace fovea::recipes {

namespace {
// What the specification measured: means over 2000 draws of one query and 64 keys, all entries normal(0, 1).
struct TableRow {
  int64_t channels;
  double largest_weight, gradient_mass, entropy_nats;
};
constexpr std::array<TableRow, 4> kUnscaled = {
    {{16, 0.58, 0.554, 1.38}, {64, 0.79, 0.289, 0.58}, {128, 0.85, 0.214, 0.40}, {512, 0.93, 0.102, 0.18}}};
constexpr TableRow kScaled = {0, 0.107, 0.96, 3.69};  // any C

// By how much a mean lies off the table beyond what 2000 draws leave open: the table's own sampling error, up to 4 % at
// C = 512. `error` is our standard error, of `draws` draws.
double beyond_sampling(double value, double error, double table, int64_t draws) {
  const double of_2000 = error * std::sqrt(double(draws) / 2000);
  return std::max(0.0, std::abs(value - table) - 3 * std::hypot(error, of_2000)) / table;
}

void compare_with_table(CheckResult& result, const std::string& kind, const ScoreStatistics& s, const TableRow& row,
                        double variance, const ScoreDraws& draws) {
  const std::string name = kind + ", C = " + std::to_string(s.channels);
  result.at_most(name + ": variance of the scores, relative difference from theory",
                 std::abs(s.variance / variance - 1), 0.02);
  result.at_most(name + ": largest weight, off the table beyond sampling",
                 beyond_sampling(s.largest_weight, s.largest_weight_error, row.largest_weight, draws.draws), 0.02);
  result.at_most(name + ": gradient mass, the same",
                 beyond_sampling(s.gradient_mass, s.gradient_mass_error, row.gradient_mass, draws.draws), 0.02);
  result.at_most(name + ": entropy, the same",
                 beyond_sampling(s.entropy_nats, s.entropy_nats_error, row.entropy_nats, draws.draws), 0.02);
}
}  // namespace

CheckResult check_scaled_dot_product(const CheckOptions& options) {
  CheckResult result;
  const DefinitionErrors errors = attention_against_definition(options.full ? 200 : 50, options.seed);
  result.at_most("double against softmax(q k^T / sqrt(C)) v, largest difference over random shapes", errors.f64, 1e-12);
  result.at_most("float against the same in double", errors.f32, 2e-6);

  const int64_t calls = options.full ? 1000 : 60;
  const OptionErrors all = attention_options_against_definition(calls, options.seed);
  result.notes.push_back(std::to_string(calls) + " random calls with every option: key mask, bias, causal, local window, grouped "
                         "heads, soft cap, slopes, dropout, packed lengths");
  result.at_most("every option, double: largest difference from the definition", all.forward_f64, 1e-12);
  result.at_most("every option, double: gradients", all.gradient_f64, 1e-11);
  result.at_most("every option, float: error over that of torch's operators", all.forward_f32, 2);
  result.at_most("every option, float: gradients", all.gradient_f32, 3);
  result.at_most("every option, bfloat16: error over that of torch's operators", all.forward_bf16, 2);
  result.at_most("every option, bfloat16: gradients", all.gradient_bf16, 3);

  const ScoreDraws draws{options.full ? 20000 : 5000, 64, options.seed};
  for (const TableRow& row : kUnscaled) {
    const Scaling both = compare_scaling(row.channels, draws);
    compare_with_table(result, "unscaled", both.unscaled, row, double(row.channels), draws);
    compare_with_table(result, "scaled", both.scaled, kScaled, 1, draws);
  }
  result.notes.push_back(
      "the table comes from 2000 draws, whose standard error is up to 4 %: three of it are allowed beside the 2 %");

  const WorkedExample example = worked_example();
  const double expected[2][3] = {{0.569, 0.002, 0.429}, {0.301, 0.301, 0.399}};
  double weight_error = 0;
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 3; ++j)
      weight_error = std::max(weight_error, std::abs(example.weights[i][j].item<double>() - expected[i][j]));
  result.at_most("worked example: weights against .569/.002/.429 and .301/.301/.399", weight_error, 5e-4);
  result.at_most(
      "worked example: outputs against 1.447 and 4.104",
      std::max(std::abs(example.out[0].item<double>() - 1.447), std::abs(example.out[1].item<double>() - 4.104)), 5e-4);

  const Budget budget = softmax_budget(1000, 64, options.seed);
  result.at_most("rows of weights: largest |sum - 1|", budget.sum_error, 1e-12);
  result.at_least("rows of weights: smallest weight", budget.smallest_weight, 0);
  result.equal("a larger score with a smaller weight", double(budget.pairs_out_of_order), 0);
  result.at_most("a constant added to a row of scores: largest change of a weight", budget.shift_change, 1e-12);
  result.equal("one score raised: other weights that do not fall", double(budget.raised_without_lowering), 0);
  result.equal("rows with more than 1/t weights of at least t", double(budget.over_budget), 0);

  const AttentionBytes bytes = global_attention_bytes(16384, 64);
  if (bytes.forward >= 0) {
    result.at_most("memory of one head over 16384 tokens, its output included (MiB; the scores would be 1024)",
                   bytes.forward / (1 << 20), 64);
    result.at_most("the same with backward and all gradients", bytes.training / (1 << 20), 128);
  } else {
    result.notes.push_back("memory not measured: this system does not let a process reset its peak memory");
  }

  double worst_scaled = 1, best_unscaled = 0, mass_factor = 0;
  const int seeds = options.full ? 5 : 2;
  for (int i = 0; i < seeds; ++i) {
    const Recall scaled = learn_recall(/*scaled=*/true, 512, options.seed + i),
                 unscaled = learn_recall(/*scaled=*/false, 512, options.seed + i);
    worst_scaled = std::min(worst_scaled, scaled.accuracy), best_unscaled = std::max(best_unscaled, unscaled.accuracy);
    mass_factor += scaled.gradient_mass / unscaled.gradient_mass / seeds;
    char line[160];
    std::snprintf(line, sizeof line,
                  "recall at C = 512, seed %llu: first gradient norm of the query projection %.2f scaled, %.2f "
                  "unscaled; accuracy %.3f, %.3f",
                  static_cast<unsigned long long>(options.seed + i), scaled.gradient_norm, unscaled.gradient_norm,
                  scaled.accuracy, unscaled.accuracy);
    result.notes.push_back(line);
  }
  result.at_least("recall at C = 512, scaled: worst accuracy", worst_scaled, 0.95);
  result.at_most("the same unscaled: best accuracy (chance 0.125)", best_unscaled, 0.6);
  result.at_least("recall at C = 512: gradient mass of the first softmax, scaled over unscaled", mass_factor, 3);
  return result;
}

}  // namespace fovea::recipes
