// What windowed attention is: the definition in kernels/reference against hand-made numbers, finite differences,
// properties.
#include "fovea/kernels/window_attention.h"

#include <gtest/gtest.h>

#include <numeric>

#include "problems.h"

namespace fovea::kernels {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

WindowShape busy_shape(Bias bias = Bias::kTable, Padding padding = Padding::kToken,
                       std::optional<double> mask_value = {}) {
  return {2, 2, 3, {3, 4, 5}, {2, 3, 2}, {1, 0, 1}, bias, padding, mask_value};
}

double loss(WindowProblem<double>& p) {
  reference::window_attention_forward(p.params());
  return std::inner_product(p.out.begin(), p.out.end(), p.grad_out.begin(), 0.0);
}

TEST(WindowTokens, LastWindowOfAShiftedAxisHoldsBothEndsInTwoRegions) {
  // 1 x 1 x 6, window 4, shift 1: padded to 8, rolled order 1 2 3 4 | 5 pad pad 0.
  std::vector<int32_t> token(4), region(4);
  window_tokens({1, 1, 6}, {1, 1, 4}, {0, 0, 1}, {0, 0, 0}, token.data(), region.data());
  EXPECT_EQ(token, (std::vector<int32_t>{1, 2, 3, 4}));
  EXPECT_EQ(region, (std::vector<int32_t>(4, 24)));
  window_tokens({1, 1, 6}, {1, 1, 4}, {0, 0, 1}, {0, 0, 1}, token.data(), region.data());
  EXPECT_EQ(token, (std::vector<int32_t>{5, -1, -1, 0}));
  EXPECT_EQ(region, (std::vector<int32_t>{25, 25, 25, 26}));
}

TEST(WindowTokens, EveryTokenIsInExactlyOneWindow) {
  for (const Triple& shift : {Triple{0, 0, 0}, {1, 0, 2}, {1, 2, 3}}) {
    const Triple grid{5, 3, 7}, window{2, 3, 4}, counts = window_counts(grid, window);
    std::vector<int> seen(product(grid));
    std::vector<int32_t> token(product(window)), region(product(window));
    for (int64_t z = 0; z < counts[0]; ++z)
      for (int64_t y = 0; y < counts[1]; ++y)
        for (int64_t x = 0; x < counts[2]; ++x) {
          window_tokens(grid, window, shift, {z, y, x}, token.data(), region.data());
          for (int32_t t : token)
            if (t >= 0) ++seen[t];
        }
    EXPECT_EQ(seen, std::vector<int>(seen.size(), 1));
  }
}

TEST(RelativePositionIndex, DependsOnTheDisplacementAlone) {
  const Triple window{2, 3, 2};
  const int64_t n = product(window);
  std::vector<int32_t> index(n * n);
  relative_position_index(window, index.data());
  EXPECT_EQ(index[0], (1 * 5 + 2) * 3 + 1);       // no displacement: the middle of 3 x 5 x 3
  EXPECT_EQ(index[(n - 1) * n], 3 * 5 * 3 - 1);   // first key seen from the last token: (+1, +2, +1)
  EXPECT_EQ(index[n - 1], 0);                     // and the other way round
  EXPECT_EQ(index[1 * n + 0], index[7 * n + 6]);  // both (0, 0, +1)
}

TEST(WindowAttention, TwoTokensOfOneWindowMatchNumbersWorkedByHand) {
  // 1 x 1 x 3 in windows of 2, one channel. Window 1 holds token 2 and a padding position.
  WindowShape s{1, 1, 1, {1, 1, 3}, {1, 1, 2}, {0, 0, 0}, Bias::kTable, Padding::kExcluded, {}};
  WindowProblem<double> p(s, 0);
  p.qkv = {1, 0, 8, 0, std::log(2.0), 4, 5, 5, 7};  // q k v of each token
  p.bias_table = {std::log(3.0), 0, 0};             // displacement -1: the key lies one to the right
  reference::window_attention_forward(p.params());
  EXPECT_NEAR(p.out[0], (1 * 8 + 6 * 4) / 7.0, 1e-12);  // weights 1 and 2 * 3
  EXPECT_NEAR(p.lse[0], std::log(7.0), 1e-12);
  EXPECT_NEAR(p.out[1], 6, 1e-12);
  EXPECT_NEAR(p.out[2], 7, 1e-12);  // alone: the padding position is excluded
  p.shape.padding = Padding::kToken;
  p.pad_token = {0, 5, 1}, p.grad_pad_token.resize(3);  // same k as token 2, v = 1: half and half
  reference::window_attention_forward(p.params());
  EXPECT_NEAR(p.out[2], (7 + 3 * 1) / 4.0, 1e-12);
}

TEST(WindowAttention, GradientsMatchFiniteDifferencesOnEveryInput) {
  for (Bias bias : {Bias::kTable, Bias::kDirect})
    for (Padding padding : {Padding::kExcluded, Padding::kToken})
      for (std::optional<double> mask_value : {std::optional<double>{}, std::optional<double>{-1.5}}) {
        WindowProblem<double> p(busy_shape(bias, padding, mask_value), 1);
        reference::window_attention_backward(p.backward_params());
        const auto f = [&] { return loss(p); };
        EXPECT_LT(worst_finite_difference(p.qkv, p.grad_qkv, f), 1e-6) << p.shape.text();
        EXPECT_LT(worst_finite_difference(p.bias_table, p.grad_bias_table, f), 1e-6) << p.shape.text();
        EXPECT_LT(worst_finite_difference(p.bias, p.grad_bias, f), 1e-6) << p.shape.text();
        EXPECT_LT(worst_finite_difference(p.pad_token, p.grad_pad_token, f), 1e-6) << p.shape.text();
      }
}

TEST(WindowAttention, OneWindowOverTheGridEqualsGlobalAttention) {
  WindowShape s{2, 3, 4, {2, 3, 4}, {2, 3, 4}, {0, 0, 0}, Bias::kDirect, Padding::kExcluded, {}};
  WindowProblem<double> w(s, 2);
  reference::window_attention_forward(w.params());
  reference::window_attention_backward(w.backward_params());
  const int64_t n = 24, E = s.H * s.C;
  AttentionShape d;
  d.B = s.B, d.H = d.Hk = s.H, d.N = d.M = n, d.C = d.Cv = s.C, d.bias = Bias::kDirect, d.broadcast = Broadcast::kBatch;
  AttentionProblem<double> a(d, 3);
  a.bias = w.bias;
  auto g = a.backward_params();
  // The same memory, seen as [B,H,N,C].
  const auto part = [&](double* base, int64_t token_step) {
    return View<double, 4>{base, {s.B, s.H, n, s.C}, {n * token_step, s.C, token_step, 1}};
  };
  std::vector<double> grad(w.grad_qkv.size());
  g.forward.q = part(w.qkv.data(), 3 * E), g.forward.k = part(w.qkv.data() + E, 3 * E),
  g.forward.v = part(w.qkv.data() + 2 * E, 3 * E);
  g.grad_out = part(w.grad_out.data(), E);
  g.grad_q = part(grad.data(), 3 * E), g.grad_k = part(grad.data() + E, 3 * E),
  g.grad_v = part(grad.data() + 2 * E, 3 * E);
  std::vector<double> out(w.out.size());
  g.forward.out = part(out.data(), E);
  reference::attention_forward(g.forward);
  reference::attention_backward(g);
  EXPECT_EQ(out, w.out);
  EXPECT_EQ(a.lse, w.lse);
  EXPECT_EQ(grad, w.grad_qkv);
  EXPECT_LT(relative_error(a.grad_bias, w.grad_bias), 1e-13);
}

TEST(WindowAttention, TableEqualsTheBiasItExpandsTo) {
  WindowProblem<double> table(busy_shape(Bias::kTable), 3), direct(busy_shape(Bias::kDirect), 3);
  const int64_t n = product(table.shape.window), H = table.shape.H;
  std::vector<int32_t> relative(n * n);
  relative_position_index(table.shape.window, relative.data());
  direct.qkv = table.qkv, direct.pad_token = table.pad_token, direct.grad_out = table.grad_out;
  for (int64_t h = 0; h < H; ++h)
    for (int64_t ij = 0; ij < n * n; ++ij) direct.bias[h * n * n + ij] = table.bias_table[relative[ij] * H + h];
  EXPECT_EQ(loss(direct), loss(table));
  reference::window_attention_backward(table.backward_params());
  reference::window_attention_backward(direct.backward_params());
  std::vector<double> folded(table.grad_bias_table.size());
  for (int64_t h = 0; h < H; ++h)
    for (int64_t ij = 0; ij < n * n; ++ij) folded[relative[ij] * H + h] += direct.grad_bias[h * n * n + ij];
  EXPECT_LT(relative_error(table.grad_bias_table, folded), 1e-13);
}

TEST(WindowAttention, ZeroTableEqualsNone) {
  WindowProblem<double> with(busy_shape(Bias::kTable), 4), without(busy_shape(Bias::kNone), 4);
  std::fill(with.bias_table.begin(), with.bias_table.end(), 0.0);
  without.qkv = with.qkv, without.pad_token = with.pad_token;
  reference::window_attention_forward(with.params());
  reference::window_attention_forward(without.params());
  EXPECT_EQ(with.out, without.out);
}

TEST(WindowAttention, VeryNegativeMaskValueEqualsExclusion) {
  WindowProblem<double> masked(busy_shape(Bias::kTable, Padding::kToken, -1e4), 5), excluded(busy_shape(), 5);
  EXPECT_EQ(loss(masked), loss(excluded));
}

TEST(WindowAttention, ShiftedWindowsOnARolledGridEqualWindowsOfThatGrid) {
  // Without regions (mask_value 0) a shifted call is an unshifted one on rolled data: shift, then unshift, is identity.
  WindowShape s{1, 2, 3, {4, 6, 4}, {2, 3, 4}, {1, 2, 3}, Bias::kTable, Padding::kExcluded, 0.0};
  WindowProblem<double> shifted(s, 6), rolled = shifted;
  rolled.shape.shift = {0, 0, 0};
  const int64_t row = 3 * s.H * s.C, E = s.H * s.C;
  const auto source = [&](int64_t z, int64_t y, int64_t x) {
    return ((z + 1) % 4 * 6 + (y + 2) % 6) * 4 + (x + 3) % 4;
  };
  for (int64_t z = 0, t = 0; z < 4; ++z)
    for (int64_t y = 0; y < 6; ++y)
      for (int64_t x = 0; x < 4; ++x, ++t)
        std::copy_n(shifted.qkv.begin() + source(z, y, x) * row, row, rolled.qkv.begin() + t * row);
  reference::window_attention_forward(shifted.params());
  reference::window_attention_forward(rolled.params());
  for (int64_t z = 0, t = 0; z < 4; ++z)
    for (int64_t y = 0; y < 6; ++y)
      for (int64_t x = 0; x < 4; ++x, ++t)
        for (int64_t c = 0; c < E; ++c) ASSERT_EQ(shifted.out[source(z, y, x) * E + c], rolled.out[t * E + c]);
}

TEST(WindowAttention, RowsSumToOneNameTheirKeysAndRebuildTheOutput) {
  WindowProblem<double> p(busy_shape(), 7);
  reference::window_attention_forward(p.params());
  const auto& s = p.shape;
  const int64_t n = product(s.window), R = product(s.grid);
  std::vector<int64_t> queries(R), keys(R * n);
  std::iota(queries.begin(), queries.end(), 0);
  std::vector<double> weights(s.B * s.H * R * n);
  WindowAttentionRowsParams<double> rows{p.params(), View<const int64_t, 1>::contiguous(queries.data(), {R}),
                                         View<double, 4>::contiguous(weights.data(), {s.B, s.H, R, n}),
                                         View<int64_t, 2>::contiguous(keys.data(), {R, n})};
  reference::window_attention_rows(rows);
  for (int64_t b = 0; b < s.B; ++b)
    for (int64_t h = 0; h < s.H; ++h)
      for (int64_t r = 0; r < R; ++r) {
        double sum = 0, out = 0;
        for (int64_t j = 0; j < n; ++j) {
          const double w = rows.weights(b, h, r, j);
          const int64_t token = rows.keys(r, j);
          sum += w;
          out +=
              w * (token < 0 ? p.pad_token[(2 * s.H + h) * s.C] : p.qkv[(((b * R + token) * 3 + 2) * s.H + h) * s.C]);
        }
        ASSERT_NEAR(sum, 1, 1e-12);
        ASSERT_NEAR(out, p.out[((b * R + r) * s.H + h) * s.C], 1e-12);
      }
}

TEST(WindowAttention, WhatLiesOutsideAQuerysWindowOrRegionNeverReachesIt) {
  WindowProblem<double> clean(busy_shape(Bias::kTable, Padding::kToken), 8);
  reference::window_attention_forward(clean.params());
  const auto& s = clean.shape;
  const int64_t tokens = product(s.grid), row = 3 * s.H * s.C, n = product(s.window);
  for (int64_t query = 0; query < tokens; ++query) {
    WindowProblem<double> dirty = clean;
    std::vector<int64_t> keys(n);
    std::vector<double> weights(s.B * s.H * n);
    reference::window_attention_rows(
        WindowAttentionRowsParams<double>{clean.params(), View<const int64_t, 1>::contiguous(&query, {1}),
                                          View<double, 4>::contiguous(weights.data(), {s.B, s.H, 1, n}),
                                          View<int64_t, 2>::contiguous(keys.data(), {1, n})});
    std::vector<bool> seen(tokens);
    for (int64_t j = 0; j < n; ++j)
      if (keys[j] >= 0 && weights[j] > 0) seen[keys[j]] = true;
    for (int64_t t = 0; t < s.B * tokens; ++t)
      if (t >= tokens || !seen[t]) std::fill_n(dirty.qkv.begin() + t * row, row, kNaN);
    reference::window_attention_forward(dirty.params());
    for (int64_t c = 0; c < s.H * s.C; ++c)
      ASSERT_EQ(dirty.out[query * s.H * s.C + c], clean.out[query * s.H * s.C + c]);
  }
}

TEST(WindowAttention, ResultDoesNotDependOnHowTheWorkIsSplit) {
  WindowProblem<float> one(busy_shape(), 9), many = one;
  const ParallelFor backwards = [](int64_t n, int64_t, const ParallelBody& body) {
    for (int64_t i = n - 1; i >= 0; --i) body(i, i + 1);
  };
  reference::window_attention_forward(one.params());
  reference::window_attention_backward(one.backward_params());
  reference::window_attention_forward(many.params(), backwards);
  reference::window_attention_backward(many.backward_params(), backwards);
  EXPECT_EQ(one.out, many.out);
  EXPECT_EQ(one.grad_qkv, many.grad_qkv);
  EXPECT_EQ(one.grad_bias_table, many.grad_bias_table);
  EXPECT_EQ(one.grad_pad_token, many.grad_pad_token);
}

TEST(WindowAttention, EmptyBatchGivesZeroParameterGradients) {
  WindowShape s = busy_shape();
  s.B = 0;
  WindowProblem<float> p(s, 10);
  std::fill(p.grad_bias_table.begin(), p.grad_bias_table.end(), 5.f);
  reference::window_attention_forward(p.params());
  reference::window_attention_backward(p.backward_params());
  for (float g : p.grad_bias_table) EXPECT_EQ(g, 0);
}

}  // namespace
}  // namespace fovea::kernels
