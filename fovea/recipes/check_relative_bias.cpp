// P7, relative position bias: the index, what it breaks and restores, and a rule that only it can learn.
#include <torch/torch.h>

#include "fovea/kernels/window_attention.h"
#include "fovea/ops/window_attention.h"
#include "fovea/recipes/check.h"
#include "fovea/recipes/layer_experiments.h"
#include "fovea/recipes/right_neighbour.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using kernels::Triple;

// Entries of the index that differ from the sum over axes written as in the paper.
int64_t index_errors(const Triple& w) {
  const int64_t n = w[0] * w[1] * w[2];
  std::vector<int32_t> index(n * n);
  kernels::relative_position_index(w, index.data());
  int64_t wrong = 0;
  auto place = [&](int64_t t) { return Triple{t / (w[1] * w[2]), t / w[2] % w[1], t % w[2]}; };
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) {
      const Triple a = place(i), b = place(j);
      const int64_t row = (a[0] - b[0] + w[0] - 1) * (2 * w[1] - 1) * (2 * w[2] - 1) + (a[1] - b[1] + w[1] - 1) * (2 * w[2] - 1) + (a[2] - b[2] + w[2] - 1);
      wrong += index[i * n + j] != row;
    }
  return wrong;
}

int64_t table_rows(const Triple& w) {
  const int64_t n = w[0] * w[1] * w[2];
  std::vector<int32_t> index(n * n);
  kernels::relative_position_index(w, index.data());
  return *std::max_element(index.begin(), index.end()) + 1;
}

}  // namespace

CheckResult check_relative_bias(const CheckOptions& options) {
  CheckResult result;
  result.equal("table rows of an 8^3 window", double(table_rows({8, 8, 8})), 3375);
  result.equal("table rows of a 7^3 window", double(table_rows({7, 7, 7})), 2197);
  result.equal("index entries that differ from the formula, 7^3", double(index_errors({7, 7, 7})), 0);
  result.equal("index entries that differ from the formula, 2x3x5", double(index_errors({2, 3, 5})), 0);

  auto generator = at::detail::createCPUGenerator(options.seed);
  {
    torch::NoGradGuard no_grad;
    const auto qkv = torch::randn({1, 8, 6, 10, 3, 2, 16}, generator, torch::kFloat32);
    const auto table = torch::randn({5 * 5 * 5, 2}, generator, torch::kFloat32);
    std::vector<int32_t> index(27 * 27);
    kernels::relative_position_index({3, 3, 3}, index.data());
    const auto rows = torch::from_blob(index.data(), {27 * 27}, torch::kInt32).to(torch::kInt64);
    const auto dense = table.index_select(0, rows).reshape({27, 27, 2}).permute({2, 0, 1}).contiguous();
    const auto a = std::get<0>(ops::window_attention(qkv, table, {3, 3, 3}, {1, 1, 1}));
    const auto b = std::get<0>(ops::window_attention(qkv, {}, {3, 3, 3}, {1, 1, 1}, {}, {}, {}, dense));
    result.at_most("table against the same bias written out, largest difference", (a - b).abs().max().item<double>(), 1e-6);
  }
  const Equivariance moved = permute_tokens(options.seed);
  result.at_most("equivariance without position, largest difference", moved.unbiased, 1e-6);
  result.at_least("equivariance broken by a position bias, largest difference", moved.biased, 1e-2);
  result.at_most("invariance after mean pooling, largest difference", moved.pooled, 1e-6);
  int peaks = 0, rotary_peaks = 0;
  double worst = 1, above_majority = -1;
  std::string rotary_accuracies;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const RightNeighbour learned = learn_right_neighbour(/*with_bias=*/true, options.seed + 10 + seed);
    peaks += learned.peaks_at_right_neighbour, worst = std::min(worst, learned.accuracy);
    const RightNeighbour blind = learn_right_neighbour(/*with_bias=*/false, options.seed + 10 + seed);
    above_majority = std::max(above_majority, blind.accuracy - blind.majority);
    const RightNeighbour turned = learn_right_neighbour_by_rotary(options.seed + 10 + seed);
    rotary_peaks += turned.peaks_at_right_neighbour;
    rotary_accuracies += report::printed(" %.3f", turned.accuracy);
  }
  result.equal("right neighbour: seeds of 5 whose bias peaks at displacement (0, 0, +1)", peaks, 5);
  result.at_least("right neighbour: worst accuracy with bias", worst, 0.99);
  result.at_most("right neighbour: accuracy without bias above the window's most frequent symbol, worst seed", above_majority, 0.03);
  // A few angles blur the neighbour that a table names exactly: the place is found, the accuracy is only noted.
  result.at_least("right neighbour with rotary position alone: seeds of 5 whose mean score peaks there", rotary_peaks, 4);
  result.notes.push_back("right neighbour with rotary position alone, accuracy of each seed:" + rotary_accuracies);
  for (const auto& [bias, name] : {std::pair{NeighbourBias::kTable, "table, resized trilinearly"},
                                   std::pair{NeighbourBias::kContinuous, "continuous bias, as it is"}})
    for (int i = 0; i < (options.full ? 5 : 1); ++i) {
      const WindowChange c = change_window(bias, 7, 8, options.seed + i);
      const std::string which = std::string("right neighbour, window 7 to 8, ") + name;
      if (i == 0) {
        result.at_least(which + ": accuracy at 7", c.accuracy_before, 0.99);
        if (bias == NeighbourBias::kContinuous) result.at_least(which + ": accuracy at 8", c.accuracy_after, 0.99);
      }
      result.notes.push_back(report::printed("%s, seed %llu: loss %.4f before and %.4f after, accuracy %.3f and %.3f",
                                             which.c_str(), static_cast<unsigned long long>(options.seed + i),
                                             c.loss_before, c.loss_after, c.accuracy_before, c.accuracy_after));
    }
  return result;
}

}  // namespace fovea::recipes
