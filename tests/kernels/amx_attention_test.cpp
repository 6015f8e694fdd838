// Dense attention on tiles against the definition in double on the same bfloat16 numbers.
#include <gtest/gtest.h>

#if defined(__x86_64__)
#include "amx_support.h"
#include "fovea/kernels/cpu/amx.h"

namespace fovea::kernels {
namespace {

using amx::TileUnit;

const BFloat16 kNaN(std::numeric_limits<float>::quiet_NaN()), kInfinite(std::numeric_limits<float>::infinity());

class AmxAttention : public testing::Test {
 protected:
  void SetUp() override {
    if (!amx::available(TileUnit::kEmulated)) GTEST_SKIP() << "this machine has " << name_of(best_isa()) << " at most";
  }
};

void run(Bf16AttentionProblem& p, const ParallelFor& parallel = serial_for, TileUnit unit = TileUnit::kEmulated) {
  amx::attention_forward(p.params(), parallel, unit);
  amx::attention_backward(p.backward_params(), parallel, unit);
}

void expect_close(Bf16AttentionProblem& p, double bias_gradient = kBiasGradient) {
  run(p);
  reference::attention_forward(p.exact.params());
  reference::attention_backward(p.exact.backward_params());
  const auto& e = p.exact;
  const std::string where = e.shape.text();
  const std::vector<double> out = from_bf16(p.out);
  EXPECT_LE(rms_error(out, e.out), rms_bound(e.out, kRms)) << where;
  EXPECT_LE(worst_difference(out, e.out), worst_bound(largest(e.v))) << where;
  double lse = 0;
  for (double x : e.lse) lse = std::max(lse, std::isinf(x) ? 1 : std::abs(x));
  EXPECT_LE(worst_difference(converted<double>(p.lse), e.lse), kFloat * std::max(1.0, lse)) << where;
  EXPECT_LE(rms_error(from_bf16(p.grad_q), e.grad_q), rms_bound(e.grad_q, kGradientRms)) << where;
  EXPECT_LE(rms_error(from_bf16(p.grad_k), e.grad_k), rms_bound(e.grad_k, kGradientRms)) << where;
  EXPECT_LE(rms_error(from_bf16(p.grad_v), e.grad_v), rms_bound(e.grad_v, kGradientRms)) << where;
  EXPECT_LE(relative_error(p.grad_bias, e.grad_bias), bias_gradient) << where;
}

void expect_same_bits(const Bf16AttentionProblem& a, const Bf16AttentionProblem& b, const std::string& where) {
  EXPECT_TRUE(equal_bits(a.out, b.out)) << where;
  EXPECT_TRUE(equal_bits(a.lse, b.lse)) << where;
  EXPECT_TRUE(equal_bits(a.grad_q, b.grad_q)) << where;
  EXPECT_TRUE(equal_bits(a.grad_k, b.grad_k)) << where;
  EXPECT_TRUE(equal_bits(a.grad_v, b.grad_v)) << where;
  EXPECT_TRUE(equal_bits(a.grad_bias, b.grad_bias)) << where;
}

TEST_F(AmxAttention, MatchesReferenceOnRandomShapes) {
  for (int i = 0; i < sweep_length(200, 10000); ++i) {
    Rng rng(20240801, 0, i);
    Bf16AttentionProblem p(random_attention_shape(rng, i % 10 ? 60 : 300), i);
    expect_close(p);
    ASSERT_FALSE(HasFailure()) << "shape " << i;
  }
}

TEST_F(AmxAttention, MatchesReferenceForTokensAndChannelsOnAndOffTheTiles) {
  for (int64_t n : {1, 5, 27, 64, 216, 343, 512})
    for (int64_t C : {4, 8, 16, 24, 32, 64, 100, 128}) {
      if (n > 100 && C != 16 && C != 24 && C != 100) continue;
      AttentionShape s;
      s.N = s.M = n, s.C = C, s.Cv = 132 - C, s.bias = Bias::kDirect;
      Bf16AttentionProblem p(s, n + C);
      expect_close(p);
    }
}

TEST_F(AmxAttention, MatchesReferenceOnBothSidesOfEveryTileEdge) {
  for (int64_t tile : {16, 32, 64, 128})
    for (int64_t n : {tile - 1, tile, tile + 1})
      for (bool causal : {false, true}) {
        AttentionShape s;
        s.N = n, s.M = causal ? n + 5 : 2 * tile + 1, s.C = 8, s.Cv = 12, s.causal = causal;
        Bf16AttentionProblem p(s, n);
        expect_close(p);
      }
}

TEST_F(AmxAttention, MatchesReferenceWhenSoftmaxIsPeaked) {
  for (int i = 0; i < sweep_length(40, 1000); ++i) {
    Rng rng(20240802, 0, i);
    Bf16AttentionProblem p(random_attention_shape(rng, 100), i, /*q_factor=*/8);
    expect_close(p);
    ASSERT_FALSE(HasFailure()) << "shape " << i;
  }
}

TEST_F(AmxAttention, LongRowsComeInChunksAndLongColumnsInSegments) {
  for (bool causal : {false, true}) {
    AttentionShape s;
    s.N = 600, s.M = 1500, s.C = s.Cv = 8, s.bias = Bias::kDirect, s.causal = causal;
    Bf16AttentionProblem p(s, 1);
    expect_close(p, kBf16);  // delta then comes from the rounded output
  }
}

TEST_F(AmxAttention, MatchesReferenceWhenScoresGrowFromChunkToChunkOrShrink) {
  for (double growth : {0.1, -0.1}) {  // 18 powers of two from one chunk of keys to the next
    AttentionShape s;
    s.N = 40, s.M = 600, s.C = s.Cv = 16, s.bias = Bias::kDirect;
    Bf16AttentionProblem p(s, 1);
    for (size_t i = 0; i < p.exact.bias.size(); ++i) p.exact.bias[i] += growth * static_cast<double>(i % 600);
    p.round();
    expect_close(p);
  }
}

TEST_F(AmxAttention, ScoresOfTenThousandStayFiniteAndRight) {
  for (double sign : {-1.0, 1.0}) {
    AttentionShape s;
    s.N = 40, s.M = 70, s.C = s.Cv = 16, s.bias = Bias::kDirect;
    Bf16AttentionProblem p(s, 2);
    for (double& x : p.exact.bias) x += sign * 1e4;
    p.round();
    run(p);
    reference::attention_forward(p.exact.params());
    reference::attention_backward(p.exact.backward_params());
    // A float near 1e4 has steps of 1e-3, which weights keep, beside the roundings to bfloat16.
    EXPECT_LE(rms_error(from_bf16(p.out), p.exact.out), kRms + 1e-3);
    EXPECT_LE(rms_error(from_bf16(p.grad_q), p.exact.grad_q), kGradientRms + 1e-3);
    EXPECT_LE(rms_error(from_bf16(p.grad_k), p.exact.grad_k), kGradientRms + 1e-3);
  }
}

TEST_F(AmxAttention, AQueryWithoutKeysGivesZeroAndNoGradientWhateverIsBehindTheMask) {
  AttentionShape s;
  s.B = 2, s.H = s.Hk = 2, s.N = 20, s.M = 30, s.C = 12, s.Cv = 8, s.key_mask = true;
  Bf16AttentionProblem clean(s, 3);
  std::fill(clean.exact.key_mask.begin(), clean.exact.key_mask.begin() + s.M, 0);  // batch 0 sees nothing
  Bf16AttentionProblem dirty = clean;
  for (int64_t b = 0; b < s.B; ++b)
    for (int64_t h = 0; h < s.Hk; ++h)
      for (int64_t j = 0; j < s.M; ++j)
        if (!clean.exact.key_mask[b * s.M + j]) {
          std::fill_n(dirty.k.begin() + ((b * s.Hk + h) * s.M + j) * s.C, s.C, kNaN);
          std::fill_n(dirty.v.begin() + ((b * s.Hk + h) * s.M + j) * s.Cv, s.Cv, j % 2 ? kNaN : kInfinite);
        }
  run(clean), run(dirty);
  expect_same_bits(clean, dirty, "masked");
  for (int64_t i = 0; i < s.H * s.N; ++i) EXPECT_EQ(dirty.lse[i], -std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < s.H * s.N * s.Cv; ++i) EXPECT_EQ(static_cast<float>(dirty.out[i]), 0);
  for (int64_t i = 0; i < s.H * s.N * s.C; ++i) EXPECT_EQ(static_cast<float>(dirty.grad_q[i]), 0);
  for (int64_t j = 0; j < s.M; ++j)
    EXPECT_TRUE(clean.exact.key_mask[s.M + j] || static_cast<float>(dirty.grad_v[(s.Hk * s.M + j) * s.Cv]) == 0);
}

bool is_nan(BFloat16 x) { return std::isnan(static_cast<float>(x)); }

TEST_F(AmxAttention, CausalQueriesNeverReadLaterKeys) {
  for (int64_t last : {1, 17, 48, 63, 68}) {
    AttentionShape s;
    s.N = 70, s.M = 75, s.C = s.Cv = 8, s.causal = true;
    Bf16AttentionProblem clean(s, 4), dirty = clean;
    const int64_t first_hidden = last + 1 + 5;  // query `last` sees keys below
    std::fill(dirty.k.begin() + first_hidden * s.C, dirty.k.end(), kNaN);
    std::fill(dirty.v.begin() + first_hidden * s.Cv, dirty.v.end(), kNaN);
    run(clean), run(dirty);
    for (int64_t i = 0; i < s.N; ++i)
      for (int64_t c = 0; c < s.C; ++c) {
        if (i > last) {
          ASSERT_TRUE(is_nan(dirty.out[i * s.C + c]) && is_nan(dirty.grad_q[i * s.C + c])) << last << ' ' << i;
        } else {
          ASSERT_EQ(dirty.out[i * s.C + c].bits, clean.out[i * s.C + c].bits) << last << ' ' << i;
          ASSERT_EQ(dirty.grad_q[i * s.C + c].bits, clean.grad_q[i * s.C + c].bits) << last << ' ' << i;
        }
      }
  }
}

TEST_F(AmxAttention, CausalQueriesSeeNaNInValuesOfEarlierKeysInItsChannelOnly) {
  for (int64_t bad : {0, 17, 40, 68}) {
    AttentionShape s;
    s.N = s.M = 70, s.C = s.Cv = 8, s.causal = true;
    Bf16AttentionProblem clean(s, 5), dirty = clean;
    dirty.v[bad * s.C + 3] = kNaN;
    run(clean), run(dirty);
    for (int64_t i = 0; i < s.N; ++i)
      for (int64_t c = 0; c < s.C; ++c) {
        const int64_t at = i * s.C + c;
        ASSERT_EQ(is_nan(dirty.out[at]), i >= bad && c == 3) << bad << ' ' << i;
        ASSERT_EQ(is_nan(dirty.grad_q[at]), i >= bad) << bad << ' ' << i;
        ASSERT_TRUE(is_nan(dirty.out[at]) || dirty.out[at].bits == clean.out[at].bits) << bad << ' ' << i;
      }
  }
}

TEST_F(AmxAttention, CausalKeysGetNoGradientFromEarlierQueries) {
  for (int64_t bad : {0, 17, 40, 68}) {
    AttentionShape s;
    s.N = s.M = 70, s.C = s.Cv = 8, s.causal = true;
    Bf16AttentionProblem clean(s, 5), bad_query = clean, bad_upstream = clean;
    bad_query.q[bad * s.C + 3] = kNaN, bad_upstream.grad_out[bad * s.C + 3] = kNaN;
    run(clean), run(bad_query), run(bad_upstream);
    for (int64_t j = 0; j < s.M; ++j)
      for (int64_t c = 0; c < s.C; ++c) {
        const int64_t at = j * s.C + c;
        if (j <= bad) {
          ASSERT_TRUE(is_nan(bad_query.grad_k[at]) && is_nan(bad_query.grad_v[at])) << bad << ' ' << j;
          ASSERT_TRUE(is_nan(bad_upstream.grad_k[at])) << bad << ' ' << j;
          ASSERT_EQ(is_nan(bad_upstream.grad_v[at]), c == 3) << bad << ' ' << j;
        } else {
          ASSERT_EQ(bad_query.grad_k[at].bits, clean.grad_k[at].bits) << bad << ' ' << j;
          ASSERT_EQ(bad_query.grad_v[at].bits, clean.grad_v[at].bits) << bad << ' ' << j;
          ASSERT_EQ(bad_upstream.grad_k[at].bits, clean.grad_k[at].bits) << bad << ' ' << j;
          ASSERT_EQ(bad_upstream.grad_v[at].bits, clean.grad_v[at].bits) << bad << ' ' << j;
        }
      }
  }
}

TEST_F(AmxAttention, ReadsStridedTensors) {
  // [B,N,H,C] memory seen as [B,H,N,C], bias with keys slowest.
  AttentionShape s;
  s.B = 2, s.H = s.Hk = 3, s.N = s.M = 21, s.C = s.Cv = 8, s.bias = Bias::kDirect;
  Bf16AttentionProblem dense(s, 5);
  const auto view = [&](std::vector<BFloat16>& memory) {
    return View<BFloat16, 4>{memory.data(), {s.B, s.H, s.N, s.C}, {s.N * s.H * s.C, s.C, s.H * s.C, 1}};
  };
  std::vector<BFloat16> q(dense.q.size()), k(q.size()), v(q.size()), upstream(q.size()), out(q.size()), gq(q.size()),
      gk(q.size()), gv(q.size());
  std::vector<float> bias(dense.bias.size()), grad_bias(bias.size());
  auto packed = dense.backward_params(), g = packed;
  g.forward.q = view(q), g.forward.k = view(k), g.forward.v = view(v), g.grad_out = view(upstream);
  g.forward.out = view(out), g.grad_q = view(gq), g.grad_k = view(gk), g.grad_v = view(gv);
  const std::array<int64_t, 4> keys_slowest{s.H * s.N * s.M, s.N * s.M, 1, s.N};
  g.forward.bias = {bias.data(), packed.forward.bias.shape, keys_slowest};
  g.grad_bias = {grad_bias.data(), packed.forward.bias.shape, keys_slowest};
  for (int64_t b = 0; b < s.B; ++b)
    for (int64_t h = 0; h < s.H; ++h)
      for (int64_t i = 0; i < s.N; ++i) {
        for (int64_t c = 0; c < s.C; ++c) {
          view(q)(b, h, i, c) = packed.forward.q(b, h, i, c), view(k)(b, h, i, c) = packed.forward.k(b, h, i, c);
          view(v)(b, h, i, c) = packed.forward.v(b, h, i, c), view(upstream)(b, h, i, c) = packed.grad_out(b, h, i, c);
        }
        for (int64_t j = 0; j < s.M; ++j)
          const_cast<float&>(g.forward.bias(b, h, i, j)) = packed.forward.bias(b, h, i, j);
      }
  run(dense);
  amx::attention_forward(g.forward, serial_for, TileUnit::kEmulated);
  amx::attention_backward(g, serial_for, TileUnit::kEmulated);
  for (int64_t b = 0; b < s.B; ++b)
    for (int64_t h = 0; h < s.H; ++h)
      for (int64_t i = 0; i < s.N; ++i) {
        for (int64_t c = 0; c < s.C; ++c) {
          ASSERT_EQ(view(out)(b, h, i, c).bits, packed.forward.out(b, h, i, c).bits);
          ASSERT_EQ(view(gq)(b, h, i, c).bits, packed.grad_q(b, h, i, c).bits);
          ASSERT_EQ(view(gk)(b, h, i, c).bits, packed.grad_k(b, h, i, c).bits);
          ASSERT_EQ(view(gv)(b, h, i, c).bits, packed.grad_v(b, h, i, c).bits);
        }
        for (int64_t j = 0; j < s.M; ++j) ASSERT_EQ(g.grad_bias(b, h, i, j), packed.grad_bias(b, h, i, j));
      }
}

TEST_F(AmxAttention, GivesTheSameBitsForAnyNumberOfThreadsAndOnEveryRun) {
  for (Broadcast broadcast : {Broadcast::kNone, Broadcast::kBatch, Broadcast::kBatchAndHeads, Broadcast::kQueries}) {
    AttentionShape s;
    s.B = 2, s.H = 4, s.Hk = 2, s.N = 700, s.M = 150, s.C = s.Cv = 8, s.bias = Bias::kDirect, s.broadcast = broadcast;
    Bf16AttentionProblem once(s, 6);
    run(once);
    for (const int parts : rerun_threads()) {
      Bf16AttentionProblem again(s, 6);
      run(again, threads(parts));
      expect_same_bits(once, again, std::to_string(parts) + " threads");
    }
  }
}

TEST_F(AmxAttention, TheProcessorGivesTheBitsOfTheEmulation) {
  if (!amx::available(TileUnit::kHardware)) GTEST_SKIP() << "this machine has " << name_of(best_isa()) << " at most";
  for (int i = 0; i < sweep_length(100, 10000); ++i) {
    Rng rng(20240803, 0, i);
    Bf16AttentionProblem emulated(random_attention_shape(rng, i % 10 ? 60 : 300), i, i % 3 ? 1 : 8), hardware = emulated;
    run(emulated);
    run(hardware, serial_for, TileUnit::kHardware);
    expect_same_bits(emulated, hardware, emulated.exact.shape.text());
  }
}

TEST_F(AmxAttention, NeverReadsOrWritesBesideItsTensors) {
  for (int i = 0; i < sweep_length(60, 10000); ++i)
    for (auto guard : {GuardedMemory::Guard::kBefore, GuardedMemory::Guard::kAfter}) {
      Rng rng(20240804, 0, i);
      Bf16AttentionProblem p(random_attention_shape(rng, 70), i);
      auto g = p.backward_params();
      const GuardedBf16 q(p.q, guard), k(p.k, guard), v(p.v, guard), upstream(p.grad_out, guard);
      const GuardedMemory bias(p.bias, guard);
      Banded<BFloat16> out(p.out.size()), gq(p.q.size()), gk(p.k.size()), gv(p.v.size());
      Banded<float> lse(p.lse.size()), gb(p.bias.size());
      g.forward.q.data = q.data(), g.forward.k.data = k.data(), g.forward.v.data = v.data();
      g.grad_out.data = upstream.data();
      if (g.forward.bias.data) g.forward.bias.data = bias.data(), g.grad_bias.data = gb.data();
      g.forward.out.data = out.data(), g.forward.lse.data = lse.data();
      g.grad_q.data = gq.data(), g.grad_k.data = gk.data(), g.grad_v.data = gv.data();
      amx::attention_forward(g.forward, serial_for, TileUnit::kEmulated);
      amx::attention_backward(g, serial_for, TileUnit::kEmulated);
      ASSERT_TRUE(out.whole() && gq.whole() && gk.whole() && gv.whole()) << p.exact.shape.text();
      ASSERT_TRUE(lse.whole() && gb.whole()) << p.exact.shape.text();
    }
}

TEST_F(AmxAttention, EmptyBatchQueriesOrKeysAreFine) {
  for (auto [b, n, m] : {std::array<int64_t, 3>{0, 3, 3}, {1, 0, 3}, {1, 3, 0}}) {
    AttentionShape s;
    s.B = b, s.N = n, s.M = m, s.bias = Bias::kDirect;
    Bf16AttentionProblem p(s, 9);
    std::fill(p.grad_k.begin(), p.grad_k.end(), BFloat16(5.f)), std::fill(p.out.begin(), p.out.end(), BFloat16(5.f));
    run(p);
    for (BFloat16 x : p.out) EXPECT_EQ(static_cast<float>(x), 0);
    for (BFloat16 x : p.grad_k) EXPECT_EQ(static_cast<float>(x), 0);
  }
}

}  // namespace
}  // namespace fovea::kernels
#endif
