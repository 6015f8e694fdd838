// Windowed attention on tiles against the definition in double on the same bfloat16 numbers.
#include <gtest/gtest.h>

#if defined(__x86_64__)
#include "amx_support.h"
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

void run(Bf16WindowProblem& p, const ParallelFor& parallel = serial_for) {
  amx::window_attention_forward(p.params(), parallel, TileUnit::kEmulated);
  amx::window_attention_backward(p.backward_params(), parallel, TileUnit::kEmulated);
}

// q, k or v of what has the shape of qkv.
std::vector<double> part(const Bf16WindowProblem& p, const std::vector<double>& all, int which) {
  const size_t row = static_cast<size_t>(p.exact.shape.H * p.exact.shape.C);
  std::vector<double> one;
  for (size_t at = which * row; at < all.size(); at += 3 * row) one.insert(one.end(), &all[at], &all[at] + row);
  return one;
}

void expect_close(Bf16WindowProblem& p, double bias_gradient = kBiasGradient) {
  run(p);
  reference::window_attention_forward(p.exact.params());
  reference::window_attention_backward(p.exact.backward_params());
  const std::string where = p.exact.shape.text();
  const std::vector<double> out = from_bf16(p.out), grad = from_bf16(p.grad_qkv);
  const double most = std::max(largest(p.exact.qkv), largest(p.exact.pad_token));
  EXPECT_LE(rms_error(out, p.exact.out), rms_bound(p.exact.out, kRms)) << where;
  EXPECT_LE(worst_difference(out, p.exact.out), worst_bound(most)) << where;
  EXPECT_LE(worst_difference(converted<double>(p.lse), p.exact.lse), kFloat * std::max(1.0, largest(p.exact.lse)))
      << where;
  for (int which = 0; which < 3; ++which) {
    const std::vector<double> exact = part(p, p.exact.grad_qkv, which);
    EXPECT_LE(rms_error(part(p, grad, which), exact), rms_bound(exact, kGradientRms))
        << "part " << which << " of " << where;
  }
  EXPECT_LE(relative_error(p.grad_bias_table, p.exact.grad_bias_table), bias_gradient) << where;
  EXPECT_LE(relative_error(p.grad_bias, p.exact.grad_bias), bias_gradient) << where;
  // A sum over all padded positions: where it cancels, its terms, of size 1, set the scale.
  EXPECT_LE(rms_error(from_bf16(p.grad_pad_token), p.exact.grad_pad_token, /*floor=*/1), kFewRms) << where;
}

void expect_same_bits(const Bf16WindowProblem& a, const Bf16WindowProblem& b, const std::string& where) {
  EXPECT_TRUE(equal_bits(a.out, b.out)) << where;
  EXPECT_TRUE(equal_bits(a.lse, b.lse)) << where;
  EXPECT_TRUE(equal_bits(a.grad_qkv, b.grad_qkv)) << where;
  EXPECT_TRUE(equal_bits(a.grad_bias_table, b.grad_bias_table)) << where;
  EXPECT_TRUE(equal_bits(a.grad_bias, b.grad_bias)) << where;
  EXPECT_TRUE(equal_bits(a.grad_pad_token, b.grad_pad_token)) << where;
}

TEST_F(AmxWindowAttention, MatchesReferenceForWindowsAndChannelsOnAndOffTheTiles) {
  int seed = 0;
  for (const Triple& w : {Triple{1, 1, 1}, {1, 1, 5}, {3, 3, 3}, {4, 4, 4}, {6, 6, 6}, {7, 7, 7}, {8, 8, 8}})
    for (int64_t C : {4, 8, 16, 24, 32, 64, 100, 128}) {
      if (product(w) > 100 && C != 16 && C != 24 && C != 100) continue;
      Bf16WindowProblem p({1, 1, C, w, w, {0, 0, 0}, Bias::kTable, Padding::kExcluded, {}}, ++seed);
      expect_close(p);
    }
}

TEST_F(AmxWindowAttention, MatchesReferenceOnBothSidesOfEveryTileEdge) {
  for (int64_t tile : {16, 32, 64, 128})
    for (int64_t n : {tile - 1, tile, tile + 1}) {
      Bf16WindowProblem p({1, 1, 8, {1, 1, n}, {1, 1, n}, {0, 0, 0}, Bias::kDirect, Padding::kExcluded, {}}, n);
      expect_close(p);
    }
}

TEST_F(AmxWindowAttention, MatchesReferenceOnRandomShapesShiftsPaddingsAndMasks) {
  for (int i = 0; i < sweep_length(200, 10000); ++i) {
    Rng rng(20240701, 0, i);
    Bf16WindowProblem p(random_window_shape(rng, i % 10 ? 4 : 6), i);
    expect_close(p);
    ASSERT_FALSE(HasFailure()) << "shape " << i;
  }
}

TEST_F(AmxWindowAttention, MatchesReferenceWhenSoftmaxIsPeaked) {
  for (int i = 0; i < sweep_length(40, 1000); ++i) {
    Rng rng(20240702, 0, i);
    Bf16WindowProblem p(random_window_shape(rng, 4), i, /*q_factor=*/8);
    expect_close(p);
    ASSERT_FALSE(HasFailure()) << "shape " << i;
  }
}

TEST_F(AmxWindowAttention, MatchesReferenceWhenAWindowHasMoreKeysThanTheBackwardPassKeeps) {
  Bf16WindowProblem p({1, 1, 8, {1, 1, 1100}, {1, 1, 1100}, {0, 0, 0}, Bias::kDirect, Padding::kExcluded, {}}, 1);
  expect_close(p, kBf16);  // delta then comes from the rounded output
}

TEST_F(AmxWindowAttention, ScoresOfTenThousandStayFiniteAndRight) {
  for (double sign : {-1.0, 1.0}) {
    Bf16WindowProblem p({1, 1, 16, {4, 4, 4}, {4, 4, 4}, {0, 0, 0}, Bias::kDirect, Padding::kExcluded, {}}, 1);
    for (double& x : p.exact.bias) x += sign * 1e4;
    p.round();
    run(p);
    reference::window_attention_forward(p.exact.params());
    reference::window_attention_backward(p.exact.backward_params());
    // A float near 1e4 has steps of 1e-3, which weights keep, beside the roundings to bfloat16.
    EXPECT_LE(rms_error(from_bf16(p.out), p.exact.out), kRms + 1e-3);
    EXPECT_LE(rms_error(from_bf16(p.grad_qkv), p.exact.grad_qkv), kGradientRms + 1e-3);
  }
}

TEST_F(AmxWindowAttention, BiasOfMinusInfinityRemovesAKey) {
  Bf16WindowProblem p({1, 1, 8, {1, 1, 20}, {1, 1, 20}, {0, 0, 0}, Bias::kDirect, Padding::kExcluded, {}}, 2);
  for (int64_t i = 0; i < 20; ++i)
    for (int64_t j = 0; j < 20; ++j)
      if (i == 3 || (i + j) % 3 == 0) p.exact.bias[i * 20 + j] = -std::numeric_limits<double>::infinity();
  p.round();
  expect_close(p);
  for (int64_t c = 0; c < 8; ++c) EXPECT_EQ(static_cast<float>(p.out[3 * 8 + c]), 0);
  EXPECT_EQ(p.lse[3], -std::numeric_limits<float>::infinity());
  for (BFloat16 x : p.grad_qkv) EXPECT_TRUE(std::isfinite(static_cast<float>(x)));
}

// One query whose scores need the running maximum puts its whole block on it.
TEST_F(AmxWindowAttention, APeakedQueryChangesNoBitOfItsNeighboursOutputs) {
  const int64_t n = 70, C = 24;
  Bf16WindowProblem mild({1, 1, C, {1, 1, n}, {1, 1, n}, {0, 0, 0}, Bias::kDirect, Padding::kExcluded, {}}, 3);
  Bf16WindowProblem wild = mild;
  for (int64_t c = 0; c < C; ++c) wild.exact.qkv[40 * 3 * C + c] *= 1000;
  wild.round();
  run(mild), run(wild);
  for (int64_t i = 0; i < n * C; ++i) {
    if (i / C == 40) continue;
    ASSERT_EQ(mild.out[i].bits, wild.out[i].bits) << i / C;
  }
  EXPECT_FALSE(equal_bits(mild.out, wild.out));
}

TEST_F(AmxWindowAttention, GivesTheSameBitsForAnyNumberOfThreadsAndOnEveryRun) {
  for (Bias bias : {Bias::kTable, Bias::kDirect}) {
    const WindowShape s{2, 2, 16, {9, 7, 11}, {3, 2, 3}, {1, 1, 0}, bias, Padding::kToken, {}};
    Bf16WindowProblem once(s, 4);
    run(once);
    for (const int parts : rerun_threads()) {
      Bf16WindowProblem again(s, 4);
      run(again, threads(parts));
      expect_same_bits(once, again, std::to_string(parts) + " threads");
    }
  }
}

TEST_F(AmxWindowAttention, TheProcessorGivesTheBitsOfTheEmulation) {
  if (!amx::available(TileUnit::kHardware)) GTEST_SKIP() << "this machine has " << name_of(best_isa()) << " at most";
  for (int i = 0; i < sweep_length(100, 10000); ++i) {
    Rng rng(20240703, 0, i);
    Bf16WindowProblem emulated(random_window_shape(rng, i % 10 ? 4 : 6), i, i % 3 ? 1 : 8), hardware = emulated;
    run(emulated);
    amx::window_attention_forward(hardware.params(), serial_for, TileUnit::kHardware);
    amx::window_attention_backward(hardware.backward_params(), serial_for, TileUnit::kHardware);
    expect_same_bits(emulated, hardware, emulated.exact.shape.text());
  }
}

TEST_F(AmxWindowAttention, ReadsStridedInputsAndWritesStridedOutputs) {
  const WindowShape s{2, 2, 12, {3, 5, 4}, {2, 2, 3}, {1, 1, 0}, Bias::kTable, Padding::kToken, {}};
  Bf16WindowProblem dense(s, 3);
  // The same tensors with X slowest and gaps between rows of channels.
  const auto [Z, Y, X] = s.grid;
  const int64_t E = s.H * s.C, row = 3 * E + 5;
  std::vector<BFloat16> qkv(X * Y * Z * s.B * row, BFloat16(NAN)), grad(qkv.size()), out(qkv.size()),
      upstream(qkv.size());
  std::vector<float> lse(dense.lse.size());
  auto g = dense.backward_params();
  const std::array<int64_t, 7> strides{row, s.B * row, Z * s.B * row, Y * Z * s.B * row, E, s.C, 1};
  g.forward.qkv = {qkv.data(), g.forward.qkv.shape, strides};
  g.grad_qkv = {grad.data(), g.forward.qkv.shape, strides};
  g.forward.out = {out.data(), g.forward.out.shape, {row, s.B * row, Z * s.B * row, Y * Z * s.B * row, s.C, 1}};
  g.grad_out = {upstream.data(), g.forward.out.shape, g.forward.out.stride};
  g.forward.lse = {lse.data(), g.forward.lse.shape, {1, s.B, s.B * s.H, s.B * s.H * Z, s.B * s.H * Z * Y}};
  const auto packed = dense.backward_params();
  const auto each = [&](auto&& visit) {
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t z = 0; z < Z; ++z)
        for (int64_t y = 0; y < Y; ++y)
          for (int64_t x = 0; x < X; ++x)
            for (int64_t h = 0; h < s.H; ++h)
              for (int64_t c = 0; c < s.C; ++c) visit(b, z, y, x, h, c);
  };
  each([&](auto b, auto z, auto y, auto x, auto h, auto c) {
    for (int which = 0; which < 3; ++which)
      const_cast<BFloat16&>(g.forward.qkv(b, z, y, x, which, h, c)) = packed.forward.qkv(b, z, y, x, which, h, c);
    const_cast<BFloat16&>(g.grad_out(b, z, y, x, h, c)) = packed.grad_out(b, z, y, x, h, c);
  });
  run(dense);
  const std::vector<float> table_gradient = dense.grad_bias_table;
  amx::window_attention_forward(g.forward, serial_for, TileUnit::kEmulated);
  amx::window_attention_backward(g, serial_for, TileUnit::kEmulated);
  each([&](auto b, auto z, auto y, auto x, auto h, auto c) {
    ASSERT_EQ(g.forward.out(b, z, y, x, h, c).bits, packed.forward.out(b, z, y, x, h, c).bits);
    ASSERT_EQ(g.forward.lse(b, h, z, y, x), packed.forward.lse(b, h, z, y, x));
    for (int which = 0; which < 3; ++which)
      ASSERT_EQ(g.grad_qkv(b, z, y, x, which, h, c).bits, packed.grad_qkv(b, z, y, x, which, h, c).bits);
  });
  EXPECT_TRUE(equal_bits(dense.grad_bias_table, table_gradient));
}

TEST_F(AmxWindowAttention, NeverReadsOrWritesBesideItsTensors) {
  for (int i = 0; i < sweep_length(60, 10000); ++i)
    for (auto guard : {GuardedMemory::Guard::kBefore, GuardedMemory::Guard::kAfter}) {
      Rng rng(20240704, 0, i);
      Bf16WindowProblem p(random_window_shape(rng, 3), i);
      auto g = p.backward_params();
      const GuardedBf16 qkv(p.qkv, guard), pad(p.pad_token, guard), upstream(p.grad_out, guard);
      const GuardedMemory table(p.bias_table, guard), bias(p.bias, guard);
      Banded<BFloat16> out(p.out.size()), grad(p.qkv.size()), grad_pad(p.pad_token.size());
      Banded<float> lse(p.lse.size()), grad_table(p.bias_table.size()), grad_bias(p.bias.size());
      g.forward.qkv.data = qkv.data(), g.grad_out.data = upstream.data();
      if (g.forward.bias_table.data)
        g.forward.bias_table.data = table.data(), g.grad_bias_table.data = grad_table.data();
      if (g.forward.bias.data) g.forward.bias.data = bias.data(), g.grad_bias.data = grad_bias.data();
      if (g.forward.pad_token.data) g.forward.pad_token.data = pad.data(), g.grad_pad_token.data = grad_pad.data();
      g.forward.out.data = out.data(), g.forward.lse.data = lse.data(), g.grad_qkv.data = grad.data();
      amx::window_attention_forward(g.forward, serial_for, TileUnit::kEmulated);
      amx::window_attention_backward(g, serial_for, TileUnit::kEmulated);
      ASSERT_TRUE(out.whole() && grad.whole() && grad_pad.whole()) << p.exact.shape.text();
      ASSERT_TRUE(lse.whole() && grad_table.whole() && grad_bias.whole()) << p.exact.shape.text();
    }
}

TEST_F(AmxWindowAttention, WhatLiesOutsideAQuerysWindowOrRegionNeverReachesIt) {
  for (Padding padding : {Padding::kExcluded, Padding::kToken}) {
    const WindowShape s{1, 1, 12, {5, 4, 5}, {3, 2, 4}, {1, 1, 2}, Bias::kTable, padding, {}};
    Bf16WindowProblem clean(s, 5);
    run(clean);
    const int64_t tokens = product(s.grid), n = product(s.window), row = 3 * s.H * s.C;
    for (int64_t query = 0; query < tokens; ++query) {
      std::vector<int64_t> keys(n);
      std::vector<double> weights(n);
      reference::window_attention_rows<double>({clean.exact.params(), View<const int64_t, 1>::contiguous(&query, {1}),
                                                View<double, 4>::contiguous(weights.data(), {1, 1, 1, n}),
                                                View<int64_t, 2>::contiguous(keys.data(), {1, n})});
      std::vector<bool> seen(tokens);
      for (int64_t j = 0; j < n; ++j)
        if (keys[j] >= 0 && weights[j] > 0) seen[keys[j]] = true;
      Bf16WindowProblem dirty = clean;
      for (int64_t t = 0; t < tokens; ++t)
        if (!seen[t])
          std::fill_n(dirty.qkv.begin() + t * row, row, BFloat16(NAN)),
              std::fill_n(dirty.grad_out.begin() + t * s.C, s.C, BFloat16(NAN));
      run(dirty);
      for (int64_t c = 0; c < s.C; ++c) ASSERT_EQ(dirty.out[query * s.C + c].bits, clean.out[query * s.C + c].bits);
      for (int64_t c = 0; c < row; ++c)
        ASSERT_EQ(dirty.grad_qkv[query * row + c].bits, clean.grad_qkv[query * row + c].bits);
    }
  }
}

TEST_F(AmxWindowAttention, LeavesTheCallersFloatingPointModeAlone) {
  volatile float tiny = std::numeric_limits<float>::min();
  Bf16WindowProblem p(WindowShape{}, 6);
  run(p);
  EXPECT_GT(tiny / 4, 0);
}

TEST_F(AmxWindowAttention, EmptyBatchGivesZeroParameterGradients) {
  Bf16WindowProblem p({0, 2, 8, {4, 4, 4}, {2, 2, 2}, {0, 0, 0}, Bias::kTable, Padding::kToken, {}}, 7);
  std::fill(p.grad_bias_table.begin(), p.grad_bias_table.end(), 5.f);
  std::fill(p.grad_pad_token.begin(), p.grad_pad_token.end(), BFloat16(5.f));
  run(p);
  for (float x : p.grad_bias_table) EXPECT_EQ(x, 0);
  for (BFloat16 x : p.grad_pad_token) EXPECT_EQ(static_cast<float>(x), 0);
}

}  // namespace
}  // namespace fovea::kernels
#endif
