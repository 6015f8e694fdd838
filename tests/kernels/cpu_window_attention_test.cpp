// The SIMD kernels of windowed attention against the definition in double, for every instruction set of the machine.
#include <gtest/gtest.h>

#include "cpu_support.h"
#include "problems.h"

namespace fovea::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Bounds of the largest error, relative to max(1, largest reference value).
struct Bounds {
  double forward, backward;
};
constexpr Bounds kUnitNormal{2e-6, 5e-6}, kPeaked{5e-5, 5e-4};  // queries N(0,1), and eight times that

void run(WindowProblem<float>& p, Isa isa, const ParallelFor& parallel = serial_for) {
  cpu::window_attention_forward(p.params(), parallel, isa);
  cpu::window_attention_backward(p.backward_params(), parallel, isa);
}

void expect_matches_reference(WindowProblem<float>& p, Isa isa, const Bounds& bounds) {
  WindowProblem<double> truth(p);
  run(p, isa);
  reference::window_attention_forward(truth.params());
  reference::window_attention_backward(truth.backward_params());
  const std::string where = name_of(isa) + ": " + p.shape.text();
  EXPECT_LE(relative_error(p.out, truth.out), bounds.forward) << where;
  EXPECT_LE(relative_error(p.lse, truth.lse), bounds.forward) << where;
  EXPECT_LE(relative_error(p.grad_qkv, truth.grad_qkv), bounds.backward) << where;
  EXPECT_LE(relative_error(p.grad_bias_table, truth.grad_bias_table), bounds.backward) << where;
  EXPECT_LE(relative_error(p.grad_bias, truth.grad_bias), bounds.backward) << where;
  EXPECT_LE(relative_error(p.grad_pad_token, truth.grad_pad_token), bounds.backward) << where;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

void expect_same_bits(const WindowProblem<float>& a, const WindowProblem<float>& b, const std::string& where) {
  EXPECT_TRUE(same_bits(a.out, b.out)) << where;
  EXPECT_TRUE(same_bits(a.lse, b.lse)) << where;
  EXPECT_TRUE(same_bits(a.grad_qkv, b.grad_qkv)) << where;
  EXPECT_TRUE(same_bits(a.grad_bias_table, b.grad_bias_table)) << where;
  EXPECT_TRUE(same_bits(a.grad_bias, b.grad_bias)) << where;
  EXPECT_TRUE(same_bits(a.grad_pad_token, b.grad_pad_token)) << where;
}

TEST(CpuWindowAttention, MatchesReferenceOnRandomShapes) {
  const int shapes = sweep_length(220, 10000);
  for (Isa isa : testable_isas())
    for (int i = 0; i < shapes; ++i) {
      Rng rng(20240501, 0, i, static_cast<uint32_t>(isa));
      WindowProblem<float> p(random_window_shape(rng, i % 10 ? 4 : 5), i);
      expect_matches_reference(p, isa, kUnitNormal);
      ASSERT_FALSE(HasFailure()) << "shape " << i;
    }
}

TEST(CpuWindowAttention, MatchesReferenceOnWholeWindowsUpToEight) {
  for (Isa isa : testable_isas())
    for (int64_t w = 1; w <= 8; ++w) {
      WindowShape s{1, 1, w == 7 ? 16 : 12, {w, w, w}, {w, w, w}, {0, 0, 0}, Bias::kTable, Padding::kExcluded, {}};
      WindowProblem<float> p(s, w);
      expect_matches_reference(p, isa, kUnitNormal);
    }
}

// One row of tokens: window lengths around the tiles (8 and 16 lanes, blocks of 3 vectors, chunks of 32 keys, 32 rows).
TEST(CpuWindowAttention, MatchesReferenceOnBothSidesOfEveryTileEdge) {
  for (Isa isa : testable_isas())
    for (int64_t tile : {8, 16, 24, 32, 48, 64, 96})
      for (int64_t n : {tile - 1, tile, tile + 1, 3 * tile + 2}) {
        WindowShape s{1, 1, 8, {1, 1, n}, {1, 1, n}, {0, 0, 0}, Bias::kDirect, Padding::kExcluded, {}};
        WindowProblem<float> p(s, n);
        expect_matches_reference(p, isa, kUnitNormal);
      }
}

TEST(CpuWindowAttention, MatchesReferenceForEveryNumberOfChannels) {
  for (Isa isa : testable_isas())
    for (int64_t C = 1; C <= 130; C += C < 34 ? 1 : 7) {
      WindowShape s{1, 2, C, {3, 3, 4}, {2, 3, 4}, {1, 0, 0}, Bias::kTable, Padding::kToken, {}};
      WindowProblem<float> p(s, C);
      expect_matches_reference(p, isa, kUnitNormal);
    }
}

TEST(CpuWindowAttention, MatchesReferenceWhenSoftmaxIsPeaked) {
  const int shapes = sweep_length(40, 1000);
  for (Isa isa : testable_isas())
    for (int i = 0; i < shapes; ++i) {
      Rng rng(20240502, 0, i, static_cast<uint32_t>(isa));
      WindowProblem<float> p(random_window_shape(rng, 4), i, /*q_factor=*/8);
      expect_matches_reference(p, isa, kPeaked);
      ASSERT_FALSE(HasFailure()) << "shape " << i;
    }
}

TEST(CpuWindowAttention, GradientsOfScoresThatFloatsCannotTellApartAreFinite) {
  for (Isa isa : testable_isas())
    for (int64_t w : {2, 4}) {  // one block of keys, and more
      WindowProblem<float> p({1, 2, 16, {w, w, w}, {w, w, w}, {0, 0, 0}, Bias::kTable, Padding::kExcluded, {}}, 5, 1e10);
      run(p, isa);
      for (const auto* gradient : {&p.grad_qkv, &p.grad_bias_table})
        for (float x : *gradient) ASSERT_TRUE(std::isfinite(x)) << name_of(isa) << ", window " << w;
    }
}

TEST(CpuWindowAttention, ScoresOfTenThousandStayFiniteAndRight) {
  for (Isa isa : testable_isas())
    for (double sign : {-1.0, 1.0}) {
      WindowShape s{1, 1, 16, {4, 4, 4}, {4, 4, 4}, {0, 0, 0}, Bias::kDirect, Padding::kExcluded, {}};
      WindowProblem<float> p(s, 1);
      for (float& x : p.bias) x += static_cast<float>(sign * 1e4);
      WindowProblem<double> truth(p);
      run(p, isa);
      reference::window_attention_forward(truth.params());
      reference::window_attention_backward(truth.backward_params());
      // A float near 1e4 has steps of 1e-3: that is what weights can keep of it.
      EXPECT_LE(relative_error(p.out, truth.out), 2e-3) << name_of(isa);
      EXPECT_LE(relative_error(p.lse, truth.lse), 2e-6) << name_of(isa);
      EXPECT_LE(relative_error(p.grad_qkv, truth.grad_qkv), 5e-3) << name_of(isa);
    }
}

TEST(CpuWindowAttention, BiasOfMinusInfinityRemovesAKey) {
  for (Isa isa : testable_isas()) {
    WindowShape s{1, 1, 8, {1, 1, 20}, {1, 1, 20}, {0, 0, 0}, Bias::kDirect, Padding::kExcluded, {}};
    WindowProblem<float> p(s, 2);
    for (int64_t i = 0; i < 20; ++i)
      for (int64_t j = 0; j < 20; ++j)
        if (i == 3 || (i + j) % 3 == 0) p.bias[i * 20 + j] = -std::numeric_limits<float>::infinity();
    expect_matches_reference(p, isa, kUnitNormal);
    for (int64_t c = 0; c < 8; ++c) EXPECT_EQ(p.out[3 * 8 + c], 0);
    EXPECT_EQ(p.lse[3], -std::numeric_limits<float>::infinity());
    for (float x : p.grad_qkv) EXPECT_TRUE(std::isfinite(x));
  }
}

TEST(CpuWindowAttention, ReadsStridedInputsAndWritesStridedOutputs) {
  for (Isa isa : testable_isas()) {
    WindowShape s{2, 2, 12, {3, 5, 4}, {2, 2, 3}, {1, 1, 0}, Bias::kTable, Padding::kToken, {}};
    WindowProblem<float> dense(s, 3);
    run(dense, isa);
    // The same tensors with X slowest and gaps between rows of channels.
    const auto [Z, Y, X] = s.grid;
    const int64_t E = s.H * s.C, row = 3 * E + 5;
    std::vector<float> qkv(X * Y * Z * s.B * row, kNaN), grad(qkv.size()), out(qkv.size()), upstream(qkv.size()),
        lse(dense.lse.size());
    auto g = dense.backward_params();
    const std::array<int64_t, 7> strides{row, s.B * row, Z * s.B * row, Y * Z * s.B * row, E, s.C, 1};
    g.forward.qkv = {qkv.data(), g.forward.qkv.shape, strides};
    g.grad_qkv.data = grad.data(), g.grad_qkv.stride = strides;
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
      for (int part = 0; part < 3; ++part)
        const_cast<float&>(g.forward.qkv(b, z, y, x, part, h, c)) = packed.forward.qkv(b, z, y, x, part, h, c);
      const_cast<float&>(g.grad_out(b, z, y, x, h, c)) = packed.grad_out(b, z, y, x, h, c);
    });
    const std::vector<float> table_gradient = dense.grad_bias_table;
    cpu::window_attention_forward(g.forward, serial_for, isa);
    cpu::window_attention_backward(g, serial_for, isa);
    each([&](auto b, auto z, auto y, auto x, auto h, auto c) {
      ASSERT_EQ(g.forward.out(b, z, y, x, h, c), packed.forward.out(b, z, y, x, h, c));
      ASSERT_EQ(g.forward.lse(b, h, z, y, x), packed.forward.lse(b, h, z, y, x));
      for (int part = 0; part < 3; ++part)
        ASSERT_EQ(g.grad_qkv(b, z, y, x, part, h, c), packed.grad_qkv(b, z, y, x, part, h, c));
    });
    EXPECT_TRUE(same_bits(dense.grad_bias_table, table_gradient));
  }
}

TEST(CpuWindowAttention, GivesTheSameBitsForAnyNumberOfThreadsAndOnEveryRun) {
  for (Isa isa : testable_isas())
    for (Bias bias : {Bias::kTable, Bias::kDirect}) {
      WindowShape s{2, 2, 16, {9, 7, 11}, {3, 2, 3}, {1, 1, 0}, bias, Padding::kToken, {}};
      WindowProblem<float> once(s, 4);
      run(once, isa);
      for (const int parts : rerun_threads()) {
        WindowProblem<float> again(s, 4);
        run(again, isa, threads(parts));
        expect_same_bits(once, again, name_of(isa) + ", " + std::to_string(parts) + " threads");
      }
    }
}

TEST(CpuWindowAttention, NeverReadsOrWritesBesideItsTensors) {
  const int shapes = sweep_length(60, 10000);
  for (Isa isa : testable_isas())
    for (int i = 0; i < shapes; ++i)
      for (auto guard : {GuardedMemory::Guard::kBefore, GuardedMemory::Guard::kAfter}) {
        Rng rng(20240503, 0, i, static_cast<uint32_t>(isa));
        WindowProblem<float> p(random_window_shape(rng, 3), i);
        auto g = p.backward_params();
        const GuardedMemory qkv(p.qkv, guard), table(p.bias_table, guard), bias(p.bias, guard), pad(p.pad_token, guard),
            upstream(p.grad_out, guard);
        BandedMemory out(p.out.size()), lse(p.lse.size()), grad(p.qkv.size()), grad_table(p.bias_table.size()),
            grad_bias(p.bias.size()), grad_pad(p.pad_token.size());
        g.forward.qkv.data = qkv.data(), g.grad_out.data = upstream.data();
        if (g.forward.bias_table.data)
          g.forward.bias_table.data = table.data(), g.grad_bias_table.data = grad_table.data();
        if (g.forward.bias.data) g.forward.bias.data = bias.data(), g.grad_bias.data = grad_bias.data();
        if (g.forward.pad_token.data) g.forward.pad_token.data = pad.data(), g.grad_pad_token.data = grad_pad.data();
        g.forward.out.data = out.data(), g.forward.lse.data = lse.data(), g.grad_qkv.data = grad.data();
        cpu::window_attention_forward(g.forward, serial_for, isa);
        cpu::window_attention_backward(g, serial_for, isa);
        for (const BandedMemory* m : {&out, &lse, &grad, &grad_table, &grad_bias, &grad_pad}) {
          ASSERT_TRUE(m->intact()) << name_of(isa) << ": " << p.shape.text();
          for (float x : m->values())
            ASSERT_TRUE(std::isfinite(x)) << name_of(isa) << ": not written: " << p.shape.text();
        }
      }
}

TEST(CpuWindowAttention, WhatLiesOutsideAQuerysWindowOrRegionNeverReachesIt) {
  for (Isa isa : testable_isas())
    for (Padding padding : {Padding::kExcluded, Padding::kToken}) {
      WindowShape s{1, 1, 12, {5, 4, 5}, {3, 2, 4}, {1, 1, 2}, Bias::kTable, padding, {}};
      WindowProblem<float> clean(s, 5);
      run(clean, isa);
      const int64_t tokens = product(s.grid), n = product(s.window), row = 3 * s.H * s.C;
      for (int64_t query = 0; query < tokens; ++query) {
        std::vector<int64_t> keys(n);
        std::vector<float> weights(n);
        cpu::window_attention_rows({clean.params(), View<const int64_t, 1>::contiguous(&query, {1}),
                                    View<float, 4>::contiguous(weights.data(), {1, 1, 1, n}),
                                    View<int64_t, 2>::contiguous(keys.data(), {1, n})},
                                   serial_for);
        std::vector<bool> seen(tokens);
        for (int64_t j = 0; j < n; ++j)
          if (keys[j] >= 0 && weights[j] > 0) seen[keys[j]] = true;
        WindowProblem<float> dirty = clean;
        for (int64_t t = 0; t < tokens; ++t)
          if (!seen[t])
            std::fill_n(dirty.qkv.begin() + t * row, row, kNaN),
                std::fill_n(dirty.grad_out.begin() + t * s.C, s.C, kNaN);
        run(dirty, isa);
        for (int64_t c = 0; c < s.C; ++c)
          ASSERT_EQ(dirty.out[query * s.C + c], clean.out[query * s.C + c]) << name_of(isa);
        for (int64_t c = 0; c < row; ++c)
          ASSERT_EQ(dirty.grad_qkv[query * row + c], clean.grad_qkv[query * row + c]) << name_of(isa);
      }
    }
}

TEST(CpuWindowAttention, LeavesTheCallersFloatingPointModeAlone) {
  volatile float tiny = std::numeric_limits<float>::min();
  for (Isa isa : testable_isas()) {
    WindowProblem<float> p(WindowShape{}, 6);
    run(p, isa);
    EXPECT_GT(tiny / 4, 0) << name_of(isa);
  }
}

TEST(CpuWindowAttention, EmptyBatchGivesZeroParameterGradients) {
  for (Isa isa : testable_isas()) {
    WindowShape s{0, 2, 8, {4, 4, 4}, {2, 2, 2}, {0, 0, 0}, Bias::kTable, Padding::kToken, {}};
    WindowProblem<float> p(s, 7);
    std::fill(p.grad_bias_table.begin(), p.grad_bias_table.end(), 5.f);
    run(p, isa);
    for (float x : p.grad_bias_table) EXPECT_EQ(x, 0);
  }
}

TEST(CpuWindowAttention, BaselineRunsTheDefinition) {
  WindowShape s{1, 2, 5, {3, 3, 3}, {2, 2, 2}, {1, 0, 1}, Bias::kTable, Padding::kToken, {}};
  WindowProblem<float> p(s, 8), definition = p;
  run(p, Isa::kBaseline);
  reference::window_attention_forward(definition.params());
  reference::window_attention_backward(definition.backward_params());
  expect_same_bits(p, definition, "baseline");
}

}  // namespace
}  // namespace fovea::kernels
