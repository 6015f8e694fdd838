// The SIMD kernels of dense attention against the definition in double, for every instruction set of the machine.
#include <gtest/gtest.h>

#include "cpu_support.h"
#include "problems.h"

namespace fovea::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

// Bounds of the largest error, relative to max(1, largest reference value).
struct Bounds {
  double forward, backward;
};
constexpr Bounds kUnitNormal{2e-6, 5e-6}, kPeaked{5e-5, 5e-4};  // queries N(0,1), and eight times that

void run(AttentionProblem<float>& p, Isa isa, const ParallelFor& parallel = serial_for) {
  cpu::attention_forward(p.params(), parallel, isa);
  cpu::attention_backward(p.backward_params(), parallel, isa);
}

void expect_matches_reference(AttentionProblem<float>& p, Isa isa, const Bounds& bounds) {
  AttentionProblem<double> truth(p);
  run(p, isa);
  reference::attention_forward(truth.params());
  reference::attention_backward(truth.backward_params());
  const std::string where = name_of(isa) + ": " + p.shape.text();
  EXPECT_LE(relative_error(p.out, truth.out), bounds.forward) << where;
  EXPECT_LE(relative_error(p.lse, truth.lse), bounds.forward) << where;
  EXPECT_LE(relative_error(p.grad_q, truth.grad_q), bounds.backward) << where;
  EXPECT_LE(relative_error(p.grad_k, truth.grad_k), bounds.backward) << where;
  EXPECT_LE(relative_error(p.grad_v, truth.grad_v), bounds.backward) << where;
  EXPECT_LE(relative_error(p.grad_bias, truth.grad_bias), bounds.backward) << where;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

TEST(CpuAttention, MatchesReferenceOnRandomShapes) {
  const int shapes = sweep_length(200, 10000);
  for (Isa isa : testable_isas())
    for (int i = 0; i < shapes; ++i) {
      Rng rng(20240601, 0, i, static_cast<uint32_t>(isa));
      AttentionProblem<float> p(random_attention_shape(rng, i % 10 ? 60 : 180), i);
      expect_matches_reference(p, isa, kUnitNormal);
      ASSERT_FALSE(HasFailure()) << "shape " << i;
    }
}

TEST(CpuAttention, MatchesReferenceWithWindowsSoftCapSlopesAndDropout) {
  const int shapes = sweep_length(200, 10000);
  for (Isa isa : testable_isas())
    for (int i = 0; i < shapes; ++i) {
      Rng rng(20240604, 0, i, static_cast<uint32_t>(isa));
      AttentionProblem<float> p(random_expert_shape(rng, i % 10 ? 60 : 180), i);
      // ALiBi makes scores of up to slope times distance, and a score's rounding moves its weight by as much.
      const double largest_score = p.shape.alibi ? 0.5 * static_cast<double>(std::max(p.shape.N, p.shape.M)) : 0;
      // Dropout makes what is kept 1 / (1 - p) times as large, and with it the two terms of a score's gradient, of which a
      // query with one key leaves 0: nothing but their rounding.
      const double grown = 1 / (1 - p.shape.dropout);
      expect_matches_reference(p, isa, {kUnitNormal.forward + largest_score * 0x1p-23, kUnitNormal.backward * grown + largest_score * 0x1p-23});
      ASSERT_FALSE(HasFailure()) << "shape " << i;
    }
}

TEST(CpuAttention, AQueryFarBeforeAllKeysLosesNoPrecisionToItsSlope) {
  for (Isa isa : testable_isas())
    for (int64_t keys : {2, 3, 5}) {
      AttentionShape s;
      s.N = 200, s.M = keys, s.C = s.Cv = 33, s.alibi = true;
      AttentionProblem<float> p(s, keys);
      expect_matches_reference(p, isa, kUnitNormal);
    }
}

TEST(CpuAttention, MatchesReferenceOnBothSidesOfEveryTileEdge) {
  for (Isa isa : testable_isas())
    for (int64_t tile : {8, 16, 32, 48, 64})
      for (int64_t n : {tile - 1, tile, tile + 1, 3 * tile + 2})
        for (bool causal : {false, true}) {
          AttentionShape s;
          s.N = n, s.M = causal ? n + 5 : 2 * tile + 1, s.C = 8, s.Cv = 12, s.causal = causal;
          AttentionProblem<float> p(s, n);
          expect_matches_reference(p, isa, kUnitNormal);
        }
}

TEST(CpuAttention, MatchesReferenceForEveryNumberOfChannels) {
  for (Isa isa : testable_isas())
    for (int64_t C = 1; C <= 256; C += C < 34 ? 1 : 13) {
      AttentionShape s;
      s.N = 19, s.M = 23, s.C = C, s.Cv = 257 - C, s.bias = Bias::kDirect;
      AttentionProblem<float> p(s, C);
      expect_matches_reference(p, isa, kUnitNormal);
    }
}

TEST(CpuAttention, MatchesReferenceWhenSoftmaxIsPeaked) {
  const int shapes = sweep_length(40, 1000);
  for (Isa isa : testable_isas())
    for (int i = 0; i < shapes; ++i) {
      Rng rng(20240602, 0, i, static_cast<uint32_t>(isa));
      AttentionProblem<float> p(random_attention_shape(rng, 100), i, /*q_factor=*/8);
      expect_matches_reference(p, isa, kPeaked);
      ASSERT_FALSE(HasFailure()) << "shape " << i;
    }
}

TEST(CpuAttention, LongRowsAreCutIntoSegmentsAndStayExact) {
  for (Isa isa : testable_isas()) {
    AttentionShape s;
    s.N = 70, s.M = 4096, s.C = s.Cv = 8;  // one head: the backward pass splits the keys
    AttentionProblem<float> p(s, 1);
    expect_matches_reference(p, isa, kUnitNormal);
  }
}

TEST(CpuAttention, ScoresOfTenThousandStayFiniteAndRight) {
  for (Isa isa : testable_isas())
    for (double sign : {-1.0, 1.0}) {
      AttentionShape s;
      s.N = 40, s.M = 70, s.C = s.Cv = 16, s.bias = Bias::kDirect;
      AttentionProblem<float> p(s, 2);
      for (float& x : p.bias) x += static_cast<float>(sign * 1e4);
      AttentionProblem<double> truth(p);
      run(p, isa);
      reference::attention_forward(truth.params());
      reference::attention_backward(truth.backward_params());
      // A float near 1e4 has steps of 1e-3: that is what weights can keep of it.
      EXPECT_LE(relative_error(p.out, truth.out), 2e-3) << name_of(isa);
      EXPECT_LE(relative_error(p.grad_q, truth.grad_q), 5e-3) << name_of(isa);
      EXPECT_LE(relative_error(p.grad_k, truth.grad_k), 5e-3) << name_of(isa);
    }
}

// A float near 1e10 has steps of 1000: lse is that far from the scores it came from, and exp(s - lse) without a bound.
TEST(CpuAttention, GradientsOfScoresThatFloatsCannotTellApartAreFinite) {
  for (Isa isa : testable_isas())
    for (int64_t keys : {20, 70}) {  // one block of keys, and more
      AttentionShape s;
      s.N = 40, s.M = keys, s.C = s.Cv = 16, s.bias = Bias::kDirect;
      AttentionProblem<float> p(s, 5, /*q_factor=*/1e10);
      run(p, isa);
      for (const auto* gradient : {&p.grad_q, &p.grad_k, &p.grad_v, &p.grad_bias})
        for (float x : *gradient) ASSERT_TRUE(std::isfinite(x)) << name_of(isa) << ", keys " << keys;
    }
}

TEST(CpuAttention, AQueryWithoutKeysGivesZeroAndNoGradientWhateverIsBehindTheMask) {
  for (Isa isa : testable_isas()) {
    AttentionShape s;
    s.B = 2, s.H = s.Hk = 2, s.N = 20, s.M = 30, s.C = 12, s.Cv = 8, s.key_mask = true;
    AttentionProblem<float> clean(s, 3);
    std::fill(clean.key_mask.begin(), clean.key_mask.begin() + s.M, 0);  // batch 0 sees nothing
    AttentionProblem<float> dirty = clean;
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t h = 0; h < s.Hk; ++h)
        for (int64_t j = 0; j < s.M; ++j)
          if (!clean.key_mask[b * s.M + j]) {
            std::fill_n(dirty.k.begin() + ((b * s.Hk + h) * s.M + j) * s.C, s.C, kNaN);
            std::fill_n(dirty.v.begin() + ((b * s.Hk + h) * s.M + j) * s.Cv, s.Cv, j % 2 ? kNaN : kInfinity);
          }
    run(clean, isa), run(dirty, isa);
    EXPECT_TRUE(same_bits(clean.out, dirty.out)) << name_of(isa);
    EXPECT_TRUE(same_bits(clean.lse, dirty.lse)) << name_of(isa);
    EXPECT_TRUE(same_bits(clean.grad_q, dirty.grad_q)) << name_of(isa);
    EXPECT_TRUE(same_bits(clean.grad_k, dirty.grad_k)) << name_of(isa);
    EXPECT_TRUE(same_bits(clean.grad_v, dirty.grad_v)) << name_of(isa);
    for (int64_t i = 0; i < s.H * s.N; ++i) EXPECT_EQ(dirty.lse[i], -kInfinity);
    for (int64_t i = 0; i < s.H * s.N * s.Cv; ++i) EXPECT_EQ(dirty.out[i], 0);
    for (int64_t i = 0; i < s.H * s.N * s.C; ++i) EXPECT_EQ(dirty.grad_q[i], 0);
    for (int64_t j = 0; j < s.M; ++j)
      EXPECT_TRUE(clean.key_mask[s.M + j] || dirty.grad_v[(s.Hk * s.M + j) * s.Cv] == 0);
  }
}

TEST(CpuAttention, CausalQueriesNeverReadLaterKeys) {
  for (Isa isa : testable_isas())
    for (int64_t last : {1, 17, 48, 63, 69}) {
      AttentionShape s;
      s.N = 70, s.M = 75, s.C = s.Cv = 8, s.causal = true;
      AttentionProblem<float> clean(s, 4), dirty = clean;
      const int64_t first_hidden = last + 1 + 5;  // query `last` sees keys below
      std::fill(dirty.k.begin() + first_hidden * s.C, dirty.k.end(), kNaN);
      std::fill(dirty.v.begin() + first_hidden * s.Cv, dirty.v.end(), kNaN);
      run(clean, isa), run(dirty, isa);
      for (int64_t c = 0; c < (last + 1) * s.Cv; ++c)
        ASSERT_EQ(dirty.out[c], clean.out[c]) << name_of(isa) << ' ' << last;
      for (int64_t c = 0; c < (last + 1) * s.C; ++c)
        ASSERT_EQ(dirty.grad_q[c], clean.grad_q[c]) << name_of(isa) << ' ' << last;
      EXPECT_EQ(std::isnan(dirty.out.back()), first_hidden < s.M);
    }
}

TEST(CpuAttention, QueriesNeverReadKeysOutsideTheirWindowNorDroppedOnes) {
  for (Isa isa : testable_isas())
    for (int64_t i : {0, 17, 40, 69}) {
      AttentionShape s;
      s.N = 70, s.M = 75, s.C = s.Cv = 8, s.window_left = 12, s.window_right = 3, s.dropout = 0.3, s.softcap = 2;
      AttentionProblem<float> clean(s, 4), dirty = clean;
      const auto params = clean.params();
      for (int64_t j = 0; j < s.M; ++j) {
        const bool seen = params.first_key(i) <= j && j < params.end_key(i);
        if (!seen) std::fill_n(dirty.k.begin() + j * s.C, s.C, kNaN);
        if (!seen || params.dropout.factor(0, 0, i, j) == 0) std::fill_n(dirty.v.begin() + j * s.Cv, s.Cv, kNaN);
      }
      run(clean, isa), run(dirty, isa);
      for (int64_t c = 0; c < s.C; ++c) {
        ASSERT_EQ(dirty.out[i * s.Cv + c], clean.out[i * s.Cv + c]) << name_of(isa) << ' ' << i;
        ASSERT_EQ(dirty.grad_q[i * s.C + c], clean.grad_q[i * s.C + c]) << name_of(isa) << ' ' << i;
      }
    }
}

TEST(CpuAttention, ReadsStridedTensors) {
  for (Isa isa : testable_isas()) {
    // [B,N,H,C] memory seen as [B,H,N,C], bias with keys slowest.
    AttentionShape s;
    s.B = 2, s.H = s.Hk = 3, s.N = s.M = 21, s.C = s.Cv = 8, s.bias = Bias::kDirect;
    AttentionProblem<float> dense(s, 5);
    run(dense, isa);
    const auto view = [&](std::vector<float>& memory) {
      return View<float, 4>{memory.data(), {s.B, s.H, s.N, s.C}, {s.N * s.H * s.C, s.C, s.H * s.C, 1}};
    };
    std::vector<float> q(dense.q.size()), k(q.size()), v(q.size()), upstream(q.size()), out(q.size()), gq(q.size()),
        gk(q.size()), gv(q.size());
    std::vector<float> bias(dense.bias.size()), grad_bias(bias.size());
    auto packed = dense.backward_params(), g = packed;
    g.forward.q = view(q), g.forward.k = view(k), g.forward.v = view(v), g.grad_out = view(upstream),
    g.forward.out = view(out);
    g.grad_q = view(gq), g.grad_k = view(gk), g.grad_v = view(gv);
    const std::array<int64_t, 4> keys_slowest{s.H * s.N * s.M, s.N * s.M, 1, s.N};
    g.forward.bias = {bias.data(), packed.forward.bias.shape, keys_slowest},
    g.grad_bias = {grad_bias.data(), packed.forward.bias.shape, keys_slowest};
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t h = 0; h < s.H; ++h)
        for (int64_t i = 0; i < s.N; ++i) {
          for (int64_t c = 0; c < s.C; ++c) {
            view(q)(b, h, i, c) = packed.forward.q(b, h, i, c), view(k)(b, h, i, c) = packed.forward.k(b, h, i, c);
            view(v)(b, h, i, c) = packed.forward.v(b, h, i, c),
                             view(upstream)(b, h, i, c) = packed.grad_out(b, h, i, c);
          }
          for (int64_t j = 0; j < s.M; ++j)
            const_cast<float&>(g.forward.bias(b, h, i, j)) = packed.forward.bias(b, h, i, j);
        }
    const AttentionProblem<float> expected = dense;
    cpu::attention_forward(g.forward, serial_for, isa);
    cpu::attention_backward(g, serial_for, isa);
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t h = 0; h < s.H; ++h)
        for (int64_t i = 0; i < s.N; ++i) {
          for (int64_t c = 0; c < s.C; ++c) {
            ASSERT_EQ(view(out)(b, h, i, c), packed.forward.out(b, h, i, c));
            ASSERT_EQ(view(gq)(b, h, i, c), packed.grad_q(b, h, i, c));
            ASSERT_EQ(view(gk)(b, h, i, c), packed.grad_k(b, h, i, c));
            ASSERT_EQ(view(gv)(b, h, i, c), packed.grad_v(b, h, i, c));
          }
          for (int64_t j = 0; j < s.M; ++j)
            ASSERT_EQ(g.grad_bias(b, h, i, j), expected.grad_bias[((b * s.H + h) * s.N + i) * s.M + j]);
        }
  }
}

TEST(CpuAttention, GivesTheSameBitsForAnyNumberOfThreadsAndOnEveryRun) {
  for (Isa isa : testable_isas())
    for (Broadcast broadcast : {Broadcast::kNone, Broadcast::kBatch, Broadcast::kBatchAndHeads, Broadcast::kQueries}) {
      AttentionShape s;
      s.B = 2, s.H = 4, s.Hk = 2, s.N = 60, s.M = 1700, s.C = s.Cv = 8, s.bias = Bias::kDirect, s.broadcast = broadcast;
      AttentionProblem<float> once(s, 6);
      run(once, isa);
      for (const int parts : rerun_threads()) {
        AttentionProblem<float> again(s, 6);
        run(again, isa, threads(parts));
        const std::string where = name_of(isa) + ", " + std::to_string(parts) + " threads";
        EXPECT_TRUE(same_bits(once.out, again.out)) << where;
        EXPECT_TRUE(same_bits(once.grad_q, again.grad_q)) << where;
        EXPECT_TRUE(same_bits(once.grad_k, again.grad_k)) << where;
        EXPECT_TRUE(same_bits(once.grad_v, again.grad_v)) << where;
        EXPECT_TRUE(same_bits(once.grad_bias, again.grad_bias)) << where;
      }
    }
}

TEST(CpuAttention, PermutingBatchAndHeadsIsBitIdentical) {
  for (Isa isa : testable_isas()) {
    AttentionShape s;
    s.B = 2, s.H = s.Hk = 2, s.N = 50, s.M = 70, s.C = s.Cv = 16;
    AttentionProblem<float> p(s, 7), swapped = p;
    const auto reverse = [](std::vector<float>& x) {
      const size_t part = x.size() / 4;
      std::vector<float> y(x.size());
      for (size_t i = 0; i < 4; ++i) std::copy_n(x.begin() + i * part, part, y.begin() + (3 - i) * part);
      x = y;
    };
    for (auto* x : {&swapped.q, &swapped.k, &swapped.v, &swapped.grad_out}) reverse(*x);
    run(p, isa), run(swapped, isa);
    for (auto* x : {&swapped.out, &swapped.grad_q, &swapped.grad_k, &swapped.grad_v}) reverse(*x);
    EXPECT_TRUE(same_bits(p.out, swapped.out)) << name_of(isa);
    EXPECT_TRUE(same_bits(p.grad_q, swapped.grad_q)) << name_of(isa);
    EXPECT_TRUE(same_bits(p.grad_k, swapped.grad_k)) << name_of(isa);
    EXPECT_TRUE(same_bits(p.grad_v, swapped.grad_v)) << name_of(isa);
  }
}

TEST(CpuAttention, NeverReadsOrWritesBesideItsTensors) {
  const int shapes = sweep_length(60, 10000);
  for (Isa isa : testable_isas())
    for (int i = 0; i < shapes; ++i)
      for (auto guard : {GuardedMemory::Guard::kBefore, GuardedMemory::Guard::kAfter}) {
        Rng rng(20240603, 0, i, static_cast<uint32_t>(isa));
        AttentionProblem<float> p(i % 2 ? random_expert_shape(rng, 70) : random_attention_shape(rng, 70), i);
        auto g = p.backward_params();
        const GuardedMemory q(p.q, guard), k(p.k, guard), v(p.v, guard), bias(p.bias, guard),
            upstream(p.grad_out, guard);
        BandedMemory out(p.out.size()), lse(p.lse.size()), gq(p.q.size()), gk(p.k.size()), gv(p.v.size()),
            gb(p.bias.size());
        g.forward.q.data = q.data(), g.forward.k.data = k.data(), g.forward.v.data = v.data(),
        g.grad_out.data = upstream.data();
        if (g.forward.bias.data) g.forward.bias.data = bias.data(), g.grad_bias.data = gb.data();
        g.forward.out.data = out.data(), g.forward.lse.data = lse.data();
        g.grad_q.data = gq.data(), g.grad_k.data = gk.data(), g.grad_v.data = gv.data();
        cpu::attention_forward(g.forward, serial_for, isa);
        cpu::attention_backward(g, serial_for, isa);
        for (const BandedMemory* m : {&out, &lse, &gq, &gk, &gv, &gb}) {
          ASSERT_TRUE(m->intact()) << name_of(isa) << ": " << p.shape.text();
          for (float x : m->values())
            ASSERT_FALSE(std::isnan(x)) << name_of(isa) << ": not written: " << p.shape.text();
        }
      }
}

TEST(CpuAttention, EmptyBatchQueriesOrKeysAreFine) {
  for (Isa isa : testable_isas())
    for (auto [b, n, m] : {std::array<int64_t, 3>{0, 3, 3}, {1, 0, 3}, {1, 3, 0}}) {
      AttentionShape s;
      s.B = b, s.N = n, s.M = m, s.bias = Bias::kDirect;
      AttentionProblem<float> p(s, 9);
      std::fill(p.grad_k.begin(), p.grad_k.end(), 5.f), std::fill(p.out.begin(), p.out.end(), 5.f);
      run(p, isa);
      for (float x : p.out) EXPECT_EQ(x, 0);
      for (float x : p.grad_k) EXPECT_EQ(x, 0);
    }
}

}  // namespace
}  // namespace fovea::kernels
