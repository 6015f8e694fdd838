// What dense attention is: the definition in kernels/reference against hand-made numbers, finite differences,
// properties.
#include "fovea/kernels/attention.h"

#include <gtest/gtest.h>

#include "problems.h"

namespace fovea::kernels {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

AttentionShape busy_shape() {
  AttentionShape s;
  s.B = 2, s.H = 4, s.Hk = 2, s.N = 3, s.M = 5, s.C = 3, s.Cv = 2;
  s.bias = Bias::kDirect, s.key_mask = true, s.causal = true;
  return s;
}

TEST(Attention, TwoQueriesOverThreeKeysMatchNumbersWorkedByHand) {
  // q1 = (1, 0); k = (ln 2, 0), (0, 1), (0, 0): scores ln 2, 0, 0, weights 1/2, 1/4, 1/4. q2 = 0: a third each.
  AttentionShape s;
  s.N = 2, s.M = 3, s.C = 2, s.Cv = 1;
  AttentionProblem<double> p(s, 0);
  p.scale = 1;
  p.q = {1, 0, 0, 0}, p.k = {std::log(2.0), 0, 0, 1, 0, 0}, p.v = {8, 4, 12};
  reference::attention_forward(p.params());
  EXPECT_NEAR(p.out[0], 8, 1e-12);
  EXPECT_NEAR(p.out[1], 8, 1e-12);
  EXPECT_NEAR(p.lse[0], std::log(4.0), 1e-12);
  EXPECT_NEAR(p.lse[1], std::log(3.0), 1e-12);
  // d out1 / d score_j = w_j (v_j - out1): 0, -1, 1; times k for grad_q, times q for grad_k.
  p.grad_out = {1, 0};
  reference::attention_backward(p.backward_params());
  EXPECT_NEAR(p.grad_q[0], 0, 1e-12);
  EXPECT_NEAR(p.grad_q[1], -1, 1e-12);
  EXPECT_NEAR(p.grad_k[2], -1, 1e-12);
  EXPECT_NEAR(p.grad_k[4], 1, 1e-12);
  EXPECT_NEAR(p.grad_v[0], 0.5, 1e-12);
  EXPECT_NEAR(p.grad_v[2], 0.25, 1e-12);
}

void expect_gradients_match_finite_differences(const AttentionShape& shape, uint64_t seed) {
  AttentionProblem<double> p(shape, seed);
  reference::attention_backward(p.backward_params());
  const auto loss = [&] {
    reference::attention_forward(p.params());
    double sum = 0;
    for (size_t i = 0; i < p.out.size(); ++i) sum += p.out[i] * p.grad_out[i];
    return sum;
  };
  EXPECT_LT(worst_finite_difference(p.q, p.grad_q, loss), 1e-6) << shape.text();
  EXPECT_LT(worst_finite_difference(p.k, p.grad_k, loss), 1e-6) << shape.text();
  EXPECT_LT(worst_finite_difference(p.v, p.grad_v, loss), 1e-6) << shape.text();
  EXPECT_LT(worst_finite_difference(p.bias, p.grad_bias, loss), 1e-6) << shape.text();
}

TEST(Attention, GradientsMatchFiniteDifferencesOnEveryInput) {
  for (Broadcast broadcast : {Broadcast::kNone, Broadcast::kBatch, Broadcast::kBatchAndHeads, Broadcast::kQueries}) {
    AttentionShape s = busy_shape();
    s.broadcast = broadcast;
    expect_gradients_match_finite_differences(s, 1);
  }
}

TEST(Attention, GradientsOfWindowSoftCapSlopesAndDropoutMatchFiniteDifferences) {
  AttentionShape window, capped, dropped, all;
  for (AttentionShape* s : {&window, &capped, &dropped, &all}) {
    *s = busy_shape();
    s->N = 5, s->M = 7, s->causal = false;
  }
  window.window_left = 2, window.window_right = 1, window.alibi = true;
  capped.softcap = 0.7;
  dropped.dropout = 0.4;
  all.window_left = 4, all.causal = true, all.alibi = true, all.softcap = 1.5, all.dropout = 0.2;
  for (const AttentionShape& s : {window, capped, dropped, all}) expect_gradients_match_finite_differences(s, 10);
}

TEST(Attention, AWindowIsAlignedAtTheBottomRightAndZeroToTheRightIsCausal) {
  AttentionShape s;
  s.N = 4, s.M = 6, s.window_left = 1, s.window_right = 2;  // query i stands at key i + 2
  AttentionProblem<double> p(s, 11);
  const auto params = p.params();
  for (int64_t i = 0; i < s.N; ++i) {
    EXPECT_EQ(params.first_key(i), i + 1);
    EXPECT_EQ(params.end_key(i), std::min<int64_t>(i + 5, 6));
  }
  s.window_left = -1, s.window_right = 0;
  AttentionProblem<double> right(s, 12);
  s.window_right = -1, s.causal = true;
  AttentionProblem<double> causal(s, 12);
  reference::attention_forward(right.params()), reference::attention_forward(causal.params());
  EXPECT_EQ(right.out, causal.out);
  s.causal = false, s.window_left = s.window_right = std::numeric_limits<int64_t>::max();
  AttentionProblem<double> wide(s, 12);
  s.window_left = s.window_right = -1;
  AttentionProblem<double> all(s, 12);
  reference::attention_forward(wide.params()), reference::attention_forward(all.params());
  EXPECT_EQ(wide.out, all.out);
}

TEST(Attention, SlopesEqualTheBiasTheyStandFor) {
  AttentionShape s;
  s.H = s.Hk = 2, s.N = 3, s.M = 5, s.alibi = true;
  AttentionProblem<double> slopes(s, 13);
  s.alibi = false, s.bias = Bias::kDirect;
  AttentionProblem<double> bias(s, 13);
  bias.grad_out = slopes.grad_out;
  for (int64_t h = 0; h < 2; ++h)
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t j = 0; j < 5; ++j)
        bias.bias[(h * 3 + i) * 5 + j] = -slopes.alibi_slopes[h] * std::abs(double(i + 2 - j));
  reference::attention_forward(slopes.params()), reference::attention_forward(bias.params());
  EXPECT_LT(relative_error(slopes.out, bias.out), 1e-15);
}

TEST(Attention, DropoutKeepsTheShareThatItSaysAndOnAverageTheOutput) {
  AttentionDropout dropout{0.3, 99};
  int64_t kept = 0;
  constexpr int64_t kRows = 400, kKeys = 500;
  double sum = 0;
  for (int64_t i = 0; i < kRows; ++i)
    for (int64_t j = 0; j < kKeys; ++j) sum += dropout.factor(1, 2, i, j), kept += dropout.factor(1, 2, i, j) > 0;
  // Three standard errors of a share of 0.7 among 200 000.
  EXPECT_NEAR(double(kept) / (kRows * kKeys), 0.7, 3 * std::sqrt(0.21 / (kRows * kKeys)));
  EXPECT_NEAR(sum / (kRows * kKeys), 1, 5e-3);
  int64_t same = 0;  // another seed, head or batch draws anew
  for (int64_t j = 0; j < kKeys; ++j) {
    const double here = dropout.factor(1, 2, 0, j);
    same += here == AttentionDropout{0.3, 100}.factor(1, 2, 0, j);
    same += here == dropout.factor(0, 2, 0, j), same += here == dropout.factor(1, 3, 0, j);
  }
  EXPECT_LT(same, 3 * kKeys * 0.7);
}

TEST(Attention, EveryRowOfWeightsSumsToOneAndRebuildsTheOutput) {
  AttentionProblem<double> p(busy_shape(), 2);
  reference::attention_forward(p.params());
  const auto& s = p.shape;
  std::vector<int64_t> queries = {2, 0};
  std::vector<double> weights(s.B * s.H * 2 * s.M);
  AttentionRowsParams<double> rows{p.params(), View<const int64_t, 1>::contiguous(queries.data(), {2}),
                                   View<double, 4>::contiguous(weights.data(), {s.B, s.H, 2, s.M})};
  reference::attention_rows(rows);
  for (int64_t b = 0; b < s.B; ++b)
    for (int64_t h = 0; h < s.H; ++h)
      for (int64_t r = 0; r < 2; ++r) {
        double sum = 0, out = 0;
        for (int64_t j = 0; j < s.M; ++j)
          sum += rows.weights(b, h, r, j), out += rows.weights(b, h, r, j) * rows.forward.v(b, h / 2, j, 1);
        if (std::isinf(rows.forward.lse(b, h, queries[r]))) {
          EXPECT_EQ(sum, 0);
          continue;
        }
        EXPECT_NEAR(sum, 1, 1e-12);
        EXPECT_NEAR(out, rows.forward.out(b, h, queries[r], 1), 1e-12);
      }
}

TEST(Attention, ZeroBiasEqualsNoneAndAConstantOnARowChangesOnlyLse) {
  AttentionShape s = busy_shape();
  AttentionProblem<double> with(s, 3);
  s.bias = Bias::kNone;
  AttentionProblem<double> without(s, 3);
  without.key_mask = with.key_mask, without.grad_out = with.grad_out;
  std::fill(with.bias.begin(), with.bias.end(), 0.0);
  reference::attention_forward(with.params());
  reference::attention_forward(without.params());
  EXPECT_EQ(with.out, without.out);
  std::fill(with.bias.begin(), with.bias.end(), 1e4);
  reference::attention_forward(with.params());
  EXPECT_LT(relative_error(with.out, without.out), 1e-11);
}

TEST(Attention, PermutingKeysAndValuesTogetherChangesNothing) {
  AttentionShape s;
  s.H = 2, s.Hk = 2, s.N = 4, s.M = 7, s.C = 3, s.Cv = 3;
  AttentionProblem<double> p(s, 4), permuted = p;
  for (int64_t head = 0; head < 2; ++head)
    for (int64_t j = 0; j < 7; ++j)
      for (int64_t c = 0; c < 3; ++c) {
        const int64_t from = (head * 7 + j) * 3 + c, to = (head * 7 + (j * 3 + 2) % 7) * 3 + c;
        permuted.k[to] = p.k[from], permuted.v[to] = p.v[from];
      }
  reference::attention_forward(p.params());
  reference::attention_forward(permuted.params());
  EXPECT_LT(relative_error(permuted.out, p.out), 1e-13);
}

TEST(Attention, AQueryWithoutKeysGivesZeroAndNoGradient) {
  AttentionShape s = busy_shape();
  s.causal = false;
  AttentionProblem<double> p(s, 5);
  std::fill(p.key_mask.begin(), p.key_mask.begin() + s.M, 0);  // batch 0 sees nothing
  std::fill(p.k.begin(), p.k.begin() + s.Hk * s.M * s.C, kNaN);
  std::fill(p.v.begin(), p.v.begin() + s.Hk * s.M * s.Cv, kNaN);
  reference::attention_forward(p.params());
  reference::attention_backward(p.backward_params());
  for (int64_t i = 0; i < s.H * s.N * s.Cv; ++i) EXPECT_EQ(p.out[i], 0);
  for (int64_t i = 0; i < s.H * s.N; ++i) EXPECT_EQ(p.lse[i], -kInfinity);
  for (int64_t i = 0; i < s.H * s.N * s.C; ++i) EXPECT_EQ(p.grad_q[i], 0);
  for (int64_t i = 0; i < s.Hk * s.M * s.C; ++i) EXPECT_EQ(p.grad_k[i], 0);
  for (double x : p.out) EXPECT_FALSE(std::isnan(x));
}

TEST(Attention, CausalQueriesNeverReadLaterKeys) {
  AttentionShape s;
  s.N = 3, s.M = 5, s.causal = true;  // query i sees keys 0 .. i + 2
  AttentionProblem<double> clean(s, 6), dirty = clean;
  for (int64_t c = 0; c < s.C; ++c) dirty.k[4 * s.C + c] = dirty.v[4 * s.Cv + c] = kNaN;
  reference::attention_forward(clean.params());
  reference::attention_forward(dirty.params());
  for (int64_t i = 0; i < 2 * s.Cv; ++i) EXPECT_EQ(dirty.out[i], clean.out[i]);
  EXPECT_TRUE(std::isnan(dirty.out[2 * s.Cv]));
}

TEST(Attention, GroupedHeadsEqualRepeatedKeysAndSumTheirGradients) {
  AttentionShape grouped, full;
  grouped.H = full.H = full.Hk = 4, grouped.Hk = 2;
  AttentionProblem<double> g(grouped, 7), f(full, 8);
  f.q = g.q, f.grad_out = g.grad_out;
  const int64_t block = grouped.M * grouped.C;
  for (int64_t h = 0; h < 4; ++h)
    for (int64_t i = 0; i < block; ++i)
      f.k[h * block + i] = g.k[h / 2 * block + i], f.v[h * block + i] = g.v[h / 2 * block + i];
  reference::attention_forward(g.params());
  reference::attention_forward(f.params());
  EXPECT_EQ(g.out, f.out);
  reference::attention_backward(g.backward_params());
  reference::attention_backward(f.backward_params());
  EXPECT_EQ(g.grad_q, f.grad_q);
  for (int64_t i = 0; i < block; ++i) {
    EXPECT_NEAR(g.grad_k[block + i], f.grad_k[2 * block + i] + f.grad_k[3 * block + i], 1e-13);
    EXPECT_NEAR(g.grad_v[i], f.grad_v[i] + f.grad_v[block + i], 1e-13);
  }
}

TEST(Attention, EmptyBatchQueriesOrKeysAreFine) {
  for (auto [b, n, m] : {std::array<int64_t, 3>{0, 3, 3}, {1, 0, 3}, {1, 3, 0}}) {
    AttentionShape s;
    s.B = b, s.N = n, s.M = m, s.bias = Bias::kDirect;
    AttentionProblem<float> p(s, 9);
    reference::attention_forward(p.params());
    reference::attention_backward(p.backward_params());
    for (float x : p.out) EXPECT_EQ(x, 0);
    for (float x : p.grad_k) EXPECT_EQ(x, 0);
  }
}

}  // namespace
}  // namespace fovea::kernels
