// Windowed attention on tiles against the definition in double on the same bfloat16 numbers.
#include <gtest/gtest.h>

#if defined(__x86_64__)
#include "amx_support.h"
#include "cpu_support.h"
#include "fovea/kernels/cpu/amx.h"

namespace fovea::kernels {
namespace {

using amx::TileUnit;

class AmxWindowAttention : public testing::Test {
 protected:
  void SetUp() override {
    if (!amx::available(TileUnit::kEmulated)) GTEST_SKIP() << "this machine has " << name_of(best_isa()) << " at most";
  }
};

// Weights are rounded to bfloat16 (relative error at most kBf16 each) and divided by their rounded sum:
//   |out - exact| <= sum_j w_j kBf16 |v_j - out| <= 2 kBf16 max|v|, and rounding the result adds kBf16 |out|.
// The float parts (exp2 3e-6, sums) vanish beside that: 1 % is left for them. On average a rounding errs by 1.7e-3, and
// roundings are independent: weights and result together 2.3e-3 of the root mean square; 3e-3 leaves room for chance.
constexpr double kRms = 3e-3, kFloat = 1e-5;

void expect_forward_close(Bf16WindowProblem& p) {
  amx::window_attention_forward(p.params(), serial_for, TileUnit::kEmulated);
  reference::window_attention_forward(p.exact.params());
  const std::string where = p.exact.shape.text();
  const double most = std::max(largest(p.exact.qkv), largest(p.exact.pad_token));
  const std::vector<double> out = from_bf16(p.out);
  EXPECT_LE(rms_error(out, p.exact.out), kRms) << where;
  double worst = 0;
  for (size_t i = 0; i < out.size(); ++i) worst = std::max(worst, std::abs(out[i] - p.exact.out[i]));
  EXPECT_LE(worst, 1.01 * 3 * kBf16 * most) << where;
  worst = 0;
  for (size_t i = 0; i < p.lse.size(); ++i) worst = std::max(worst, std::abs(p.lse[i] - p.exact.lse[i]));
  EXPECT_LE(worst, kFloat) << where;
}

TEST_F(AmxWindowAttention, ForwardMatchesReferenceForWindowsOnAndOffTheTiles) {
  int seed = 0;
  for (const Triple& w : {Triple{1, 1, 1}, {1, 1, 5}, {3, 3, 3}, {4, 4, 4}, {6, 6, 6}, {7, 7, 7}, {8, 8, 8}})
    for (int64_t C : {4, 8, 16, 24, 32, 64, 100, 128}) {
      if (product(w) > 100 && C != 16 && C != 24 && C != 100) continue;
      Bf16WindowProblem p({1, 1, C, w, w, {0, 0, 0}, Bias::kTable, Padding::kExcluded, {}}, ++seed);
      expect_forward_close(p);
    }
}

WindowShape random_shape(Rng& rng, int64_t largest_window) {
  constexpr int64_t channels[] = {1, 3, 8, 12, 16, 24, 32, 48, 64, 80};
  WindowShape s;
  s.B = 1 + rng.below(2), s.H = 1 + rng.below(3), s.C = channels[rng.below(10)];
  for (int a = 0; a < 3; ++a) {
    s.window[a] = 1 + rng.below(largest_window);
    s.shift[a] = rng.chance(0.5f) ? rng.below(s.window[a]) : 0;
    s.grid[a] = 1 + rng.below(2 * s.window[a] + 1);
  }
  s.bias = static_cast<Bias>(rng.below(3));
  s.padding = rng.chance(0.5f) ? Padding::kToken : Padding::kExcluded;
  if (rng.chance(0.4f)) s.mask_value = -100;
  return s;
}

TEST_F(AmxWindowAttention, ForwardMatchesReferenceOnRandomShapesShiftsPaddingsAndMasks) {
  for (int i = 0; i < sweep_length(150, 10000); ++i) {
    Rng rng(20240701, 0, i);
    Bf16WindowProblem p(random_shape(rng, i % 10 ? 4 : 6), i);
    expect_forward_close(p);
    ASSERT_FALSE(HasFailure()) << "shape " << i;
  }
}

}  // namespace
}  // namespace fovea::kernels
#endif
