// Softmax pooling: the definition against numbers worked by hand and finite differences, the SIMD kernels against the
// definition in double on every instruction set of the machine.
#include "fovea/kernels/attention_pool.h"

#include <gtest/gtest.h>

#include "cpu_support.h"
#include "problems.h"

namespace fovea::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

template <class T>
struct PoolProblem {
  int64_t H, E;
  std::vector<int64_t> offsets;
  std::vector<T> scores, values, out, lse, grad_out, grad_scores, grad_values;

  PoolProblem(std::vector<int64_t> bag_offsets, int64_t heads, int64_t channels, uint64_t seed = 1, double factor = 1)
      : H(heads), E(channels), offsets(std::move(bag_offsets)) {
    Rng rng(seed, 0, 0);
    scores.resize(rows() * H), values.resize(rows() * E), out.resize(bags() * H * E), lse.resize(bags() * H);
    grad_out.resize(out.size()), grad_scores.resize(scores.size()), grad_values.resize(values.size());
    fill_normal(scores, rng, factor), fill_normal(values, rng), fill_normal(grad_out, rng);
  }
  template <class From>
  explicit PoolProblem(const PoolProblem<From>& p)
      : H(p.H),
        E(p.E),
        offsets(p.offsets),
        scores(converted<T>(p.scores)),
        values(converted<T>(p.values)),
        out(p.out.size()),
        lse(p.lse.size()),
        grad_out(converted<T>(p.grad_out)),
        grad_scores(p.grad_scores.size()),
        grad_values(p.grad_values.size()) {}

  int64_t rows() const { return offsets.back(); }
  int64_t bags() const { return static_cast<int64_t>(offsets.size()) - 1; }
  std::string text() const {
    std::ostringstream s;
    s << "H " << H << " E " << E << " offsets";
    for (int64_t o : offsets) s << ' ' << o;
    return s.str();
  }

  AttentionPoolParams<T> params() {
    AttentionPoolParams<T> p;
    p.scores = View<const T, 2>::contiguous(scores.data(), {rows(), H});
    p.values = View<const T, 2>::contiguous(values.data(), {rows(), E});
    p.offsets = View<const int64_t, 1>::contiguous(offsets.data(), {bags() + 1});
    p.out = View<T, 3>::contiguous(out.data(), {bags(), H, E});
    p.lse = View<T, 2>::contiguous(lse.data(), {bags(), H});
    return p;
  }
  AttentionPoolBackwardParams<T> backward_params() {
    AttentionPoolBackwardParams<T> g;
    g.forward = params();
    g.grad_out = View<const T, 3>::contiguous(grad_out.data(), g.forward.out.shape);
    g.grad_scores = View<T, 2>::contiguous(grad_scores.data(), g.forward.scores.shape);
    g.grad_values = View<T, 2>::contiguous(grad_values.data(), g.forward.values.shape);
    return g;
  }
};

template <class T>
void define(PoolProblem<T>& p) {
  reference::attention_pool_forward(p.params());
  reference::attention_pool_backward(p.backward_params());
}

void run(PoolProblem<float>& p, Isa isa, const ParallelFor& parallel = serial_for) {
  cpu::attention_pool_forward(p.params(), parallel, isa);
  cpu::attention_pool_backward(p.backward_params(), parallel, isa);
}

void expect_matches_reference(PoolProblem<float>& p, Isa isa, double forward = 2e-6, double backward = 5e-6) {
  PoolProblem<double> truth(p);
  define(truth);
  run(p, isa);
  const std::string where = name_of(isa) + ": " + p.text();
  EXPECT_LE(relative_error(p.out, truth.out), forward) << where;
  EXPECT_LE(relative_error(p.lse, truth.lse), forward) << where;
  EXPECT_LE(relative_error(p.grad_scores, truth.grad_scores), backward) << where;
  EXPECT_LE(relative_error(p.grad_values, truth.grad_values), backward) << where;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

TEST(AttentionPool, TwoBagsMatchNumbersWorkedByHand) {
  // Bag 0: scores 0 and ln 3, so weights 1/4 and 3/4 of the rows (4, 8) and (0, 4). Bag 1: one row, weight 1.
  PoolProblem<double> p({0, 2, 3}, 1, 2);
  p.scores = {0, std::log(3.0), 5}, p.values = {4, 8, 0, 4, 7, -1}, p.grad_out = {1, 0, 2, 3};
  define(p);
  const std::vector<double> out = {1, 5, 7, -1}, lse = {std::log(4.0), 5};
  // ds = w (dw - delta) with dw = 4, 0 and delta = 1.
  const std::vector<double> grad_scores = {0.75, -0.75, 0}, grad_values = {0.25, 0, 0.75, 0, 2, 3};
  EXPECT_LT(relative_error(p.out, out), 1e-15);
  EXPECT_LT(relative_error(p.lse, lse), 1e-15);
  EXPECT_LT(relative_error(p.grad_scores, grad_scores), 1e-15);
  EXPECT_LT(relative_error(p.grad_values, grad_values), 1e-15);
}

TEST(AttentionPool, GradientsMatchFiniteDifferencesOnEveryInput) {
  PoolProblem<double> p({0, 3, 3, 4, 8}, 2, 3);
  p.scores[4] = -kInfinity;  // row 2 takes no part in head 0
  define(p);
  const auto loss = [&] {
    reference::attention_pool_forward(p.params());
    double sum = 0;
    for (size_t i = 0; i < p.out.size(); ++i) sum += p.out[i] * p.grad_out[i];
    return sum;
  };
  EXPECT_EQ(p.grad_scores[4], 0);
  EXPECT_LT(worst_finite_difference(p.values, p.grad_values, loss), 1e-8);
  p.scores[4] = -1000;  // as good as -inf, and has differences
  EXPECT_LT(worst_finite_difference(p.scores, p.grad_scores, loss), 1e-8);
}

TEST(AttentionPool, VectorCodeMatchesTheDefinitionForEveryNumberOfChannelsAndHeads) {
  for (Isa isa : testable_isas())
    for (int64_t H : {1, 2, 3, 4, 5, 9})
      for (int64_t E = 1; E <= 300; E += E < 34 ? 1 : 19) {
        PoolProblem<float> p({0, 1, 3, 40}, H, E, E);
        expect_matches_reference(p, isa);
      }
}

TEST(AttentionPool, VectorCodeMatchesTheDefinitionOnBothSidesOfEveryBlockAndPart) {
  for (Isa isa : testable_isas())
    for (int64_t tile : {32, 64, 1024, 2048})
      for (int64_t n : {tile - 1, tile, tile + 1, 3 * tile + 2}) {
        PoolProblem<float> p({0, 5, 5 + n, 5 + n, 5 + 2 * n}, 3, 20, n);
        expect_matches_reference(p, isa);
      }
}

TEST(AttentionPool, VectorCodeMatchesTheDefinitionOnRandomBags) {
  const int problems = sweep_length(150, 10000);
  for (Isa isa : testable_isas())
    for (int i = 0; i < problems; ++i) {
      Rng rng(20240611, 0, i, static_cast<uint32_t>(isa));
      std::vector<int64_t> offsets{0};
      for (int bags = 1 + rng.below(6); bags > 0; --bags)
        offsets.push_back(offsets.back() + rng.below(rng.chance(0.1f) ? 3000 : 70));
      PoolProblem<float> p(offsets, 1 + rng.below(6), 1 + rng.below(120), i);
      for (float& s : p.scores)
        if (rng.chance(0.1f)) s = -kInfinity;
      expect_matches_reference(p, isa);
      ASSERT_FALSE(HasFailure()) << "problem " << i;
    }
}

TEST(AttentionPool, PeakedScoresStayWithinTheirBound) {
  for (Isa isa : testable_isas()) {
    PoolProblem<float> p({0, 50, 3000}, 3, 40, 2, /*factor=*/8);
    expect_matches_reference(p, isa, 5e-5, 5e-4);
  }
}

TEST(AttentionPool, RisingFallingAndHugeScoresNeitherOverflowNorVanish) {
  for (Isa isa : testable_isas())
    for (double step : {0.5, -0.5})
      for (double offset : {-1e4, 0.0, 1e4}) {
        PoolProblem<float> p({0, 2100}, 2, 9);
        for (int64_t n = 0; n < p.rows(); ++n)
          for (int64_t h = 0; h < p.H; ++h) p.scores[n * p.H + h] = static_cast<float>(offset + step * double(n));
        expect_matches_reference(p, isa, 2e-6, 2e-3);  // lse near 1e4 has steps of 1e-3, and weights come from it
      }
}

TEST(AttentionPool, ABagWithoutRowsThatTakePartGivesZeroAndNoGradientWhateverTheyHold) {
  for (Isa isa : testable_isas()) {
    PoolProblem<float> p({0, 40, 40, 1300, 1310}, 2, 21);
    for (int64_t n = 40; n < 1300; ++n) {
      std::fill_n(p.scores.begin() + n * p.H, p.H, -kInfinity);
      std::fill_n(p.values.begin() + n * p.E, p.E, n % 2 ? kNaN : kInfinity);
    }
    for (int64_t b : {1, 2}) std::fill_n(p.grad_out.begin() + b * p.H * p.E, p.H * p.E, kNaN);
    run(p, isa);
    for (int64_t i = p.H * p.E; i < 3 * p.H * p.E; ++i) ASSERT_EQ(p.out[i], 0) << name_of(isa);
    for (int64_t i = p.H; i < 3 * p.H; ++i) EXPECT_EQ(p.lse[i], -kInfinity) << name_of(isa);
    for (int64_t i = 40 * p.H; i < 1300 * p.H; ++i) ASSERT_EQ(p.grad_scores[i], 0) << name_of(isa);
    for (int64_t i = 40 * p.E; i < 1300 * p.E; ++i) ASSERT_EQ(p.grad_values[i], 0) << name_of(isa);
    // The other bags are none the wiser.
    PoolProblem<float> alone({0, 40}, 2, 21);
    std::copy_n(p.scores.begin(), alone.scores.size(), alone.scores.begin());
    std::copy_n(p.values.begin(), alone.values.size(), alone.values.begin());
    std::copy_n(p.grad_out.begin(), alone.grad_out.size(), alone.grad_out.begin());
    run(alone, isa);
    for (size_t i = 0; i < alone.out.size(); ++i) ASSERT_EQ(p.out[i], alone.out[i]) << name_of(isa);
    for (size_t i = 0; i < alone.grad_values.size(); ++i) ASSERT_EQ(p.grad_values[i], alone.grad_values[i]);
  }
}

TEST(AttentionPool, ARowThatTakesPartInOneHeadOnlyStaysOutOfTheOthers) {
  for (Isa isa : testable_isas()) {
    PoolProblem<float> clean({0, 70}, 3, 18);
    for (int64_t n = 0; n < 70; n += 7)
      for (int64_t h : {0, 2}) clean.scores[n * 3 + h] = -kInfinity;
    PoolProblem<float> dirty = clean;
    for (int64_t n = 0; n < 70; n += 7) dirty.values[n * 18 + 5] = kNaN;
    run(clean, isa), run(dirty, isa);
    for (int64_t h : {0, 2})
      for (int64_t c = 0; c < 18; ++c) ASSERT_EQ(clean.out[h * 18 + c], dirty.out[h * 18 + c]) << name_of(isa);
    EXPECT_TRUE(std::isnan(dirty.out[18 + 5]));
    for (int64_t n = 0; n < 70; ++n)
      for (int64_t h : {0, 2}) ASSERT_EQ(clean.grad_scores[n * 3 + h], dirty.grad_scores[n * 3 + h]) << name_of(isa);
  }
}

TEST(AttentionPool, NotANumberInAScoreSpoilsItsBagAndHeadOnlyAndSoDoesPlusInfinity) {
  for (Isa isa : testable_isas())
    for (float bad : {kNaN, kInfinity})
      for (int64_t row : {0, 1500}) {
        PoolProblem<float> p({0, 1600, 1610}, 2, 5);
        p.scores[row * 2 + 1] = bad;
        PoolProblem<double> truth(p);
        define(truth), run(p, isa);
        for (size_t i = 0; i < p.out.size(); ++i) ASSERT_EQ(std::isnan(p.out[i]), std::isnan(truth.out[i])) << i;
        for (size_t i = 0; i < p.lse.size(); ++i) ASSERT_EQ(std::isnan(p.lse[i]), std::isnan(truth.lse[i])) << i;
        EXPECT_TRUE(std::isnan(p.out[5]) && !std::isnan(p.out[0]) && !std::isnan(p.out[15])) << name_of(isa);
      }
}

TEST(AttentionPool, EqualScoresGiveTheMeanAndMovingRowsTogetherChangesNothing) {
  for (Isa isa : testable_isas()) {
    PoolProblem<float> p({0, 1500}, 2, 7);
    PoolProblem<float> reversed = p;
    for (int64_t n = 0; n < 1500; ++n) {
      std::copy_n(p.scores.begin() + n * 2, 2, reversed.scores.begin() + (1499 - n) * 2);
      std::copy_n(p.values.begin() + n * 7, 7, reversed.values.begin() + (1499 - n) * 7);
    }
    run(p, isa), run(reversed, isa);
    EXPECT_LE(relative_error(reversed.out, p.out), 2e-6) << name_of(isa);
    std::fill(p.scores.begin(), p.scores.end(), 3.f);
    run(p, isa);
    for (int64_t c = 0; c < 7; ++c) {
      double mean = 0;
      for (int64_t n = 0; n < 1500; ++n) mean += double(p.values[n * 7 + c]) / 1500;
      EXPECT_NEAR(p.out[c], mean, 2e-6) << name_of(isa);
    }
  }
}

TEST(AttentionPool, GivesTheSameBitsForAnyNumberOfThreads) {
  for (Isa isa : testable_isas()) {
    PoolProblem<float> once({0, 10, 5000, 5000, 5033, 9000}, 5, 37);
    run(once, isa);
    for (const int parts : rerun_threads()) {
      PoolProblem<float> again({0, 10, 5000, 5000, 5033, 9000}, 5, 37);
      run(again, isa, threads(parts));
      EXPECT_TRUE(same_bits(once.out, again.out)) << name_of(isa) << ' ' << parts;
      EXPECT_TRUE(same_bits(once.lse, again.lse)) << name_of(isa) << ' ' << parts;
      EXPECT_TRUE(same_bits(once.grad_scores, again.grad_scores)) << name_of(isa) << ' ' << parts;
      EXPECT_TRUE(same_bits(once.grad_values, again.grad_values)) << name_of(isa) << ' ' << parts;
    }
  }
}

TEST(AttentionPool, PermutingHeadsIsBitIdentical) {
  for (Isa isa : testable_isas()) {
    PoolProblem<float> p({0, 90}, 5, 150), rotated = p;
    for (int64_t n = 0; n < 90; ++n)
      for (int64_t h = 0; h < 5; ++h) rotated.scores[n * 5 + (h + 2) % 5] = p.scores[n * 5 + h];
    run(p, isa), run(rotated, isa);
    for (int64_t h = 0; h < 5; ++h)
      for (int64_t c = 0; c < 150; ++c) ASSERT_EQ(rotated.out[(h + 2) % 5 * 150 + c], p.out[h * 150 + c]);
  }
}

TEST(AttentionPool, ReadsStridedScoresAndValues) {
  for (Isa isa : testable_isas()) {
    PoolProblem<float> p({0, 20, 61}, 3, 13);
    run(p, isa);
    std::vector<float> scores(p.scores.size()), values(61 * 30), out(2 * 3 * 20), grad_scores(scores.size()),
        grad_values(values.size());
    auto g = p.backward_params();
    const auto packed = g;
    g.forward.scores = {scores.data(), packed.forward.scores.shape, {1, 61}};
    g.forward.values = {values.data() + 3, packed.forward.values.shape, {30, 1}};
    g.forward.out = {out.data(), packed.forward.out.shape, {60, 20, 1}};
    g.grad_scores = {grad_scores.data(), packed.grad_scores.shape, {1, 61}};
    g.grad_values = {grad_values.data() + 3, packed.grad_values.shape, {30, 1}};
    for (int64_t n = 0; n < 61; ++n) {
      for (int64_t h = 0; h < 3; ++h) scores[h * 61 + n] = p.scores[n * 3 + h];
      std::copy_n(p.values.begin() + n * 13, 13, values.begin() + 3 + n * 30);
    }
    const PoolProblem<float> expected = p;
    cpu::attention_pool_forward(g.forward, serial_for, isa);
    cpu::attention_pool_backward(g, serial_for, isa);
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t h = 0; h < 3; ++h)
        for (int64_t c = 0; c < 13; ++c) ASSERT_EQ(g.forward.out(b, h, c), expected.out[(b * 3 + h) * 13 + c]);
    for (int64_t n = 0; n < 61; ++n) {
      for (int64_t h = 0; h < 3; ++h) ASSERT_EQ(g.grad_scores(n, h), expected.grad_scores[n * 3 + h]);
      for (int64_t c = 0; c < 13; ++c) ASSERT_EQ(g.grad_values(n, c), expected.grad_values[n * 13 + c]);
    }
  }
}

TEST(AttentionPool, NeverReadsOrWritesBesideItsTensors) {
  const int problems = sweep_length(60, 10000);
  for (Isa isa : testable_isas())
    for (int i = 0; i < problems; ++i)
      for (auto guard : {GuardedMemory::Guard::kBefore, GuardedMemory::Guard::kAfter}) {
        Rng rng(20240612, 0, i, static_cast<uint32_t>(isa));
        const int64_t first = rng.below(40), second = first + rng.below(1200);
        PoolProblem<float> p({0, first, second}, 1 + rng.below(5), 1 + rng.below(70), i);
        auto g = p.backward_params();
        const GuardedMemory scores(p.scores, guard), values(p.values, guard), upstream(p.grad_out, guard);
        BandedMemory out(p.out.size()), lse(p.lse.size()), gs(p.scores.size()), gv(p.values.size());
        g.forward.scores.data = scores.data(), g.forward.values.data = values.data(), g.grad_out.data = upstream.data();
        g.forward.out.data = out.data(), g.forward.lse.data = lse.data();
        g.grad_scores.data = gs.data(), g.grad_values.data = gv.data();
        cpu::attention_pool_forward(g.forward, serial_for, isa);
        cpu::attention_pool_backward(g, serial_for, isa);
        for (const BandedMemory* m : {&out, &lse, &gs, &gv}) {
          ASSERT_TRUE(m->intact()) << name_of(isa) << ": " << p.text();
          for (float x : m->values()) ASSERT_FALSE(std::isnan(x)) << name_of(isa) << ": not written: " << p.text();
        }
      }
}

TEST(AttentionPool, NoBagsNoRowsNoHeadsAndNoChannelsAreFine) {
  for (Isa isa : testable_isas())
    for (auto [offsets, H, E] : std::vector<std::tuple<std::vector<int64_t>, int64_t, int64_t>>{
             {{0}, 2, 3}, {{0, 0, 0}, 2, 3}, {{0, 40}, 0, 3}, {{0, 40}, 2, 0}}) {
      PoolProblem<float> p(offsets, H, E);
      std::fill(p.out.begin(), p.out.end(), 5.f);
      run(p, isa);
      for (float x : p.out) EXPECT_EQ(x, 0);
      for (float x : p.lse) EXPECT_EQ(x == -kInfinity, p.rows() == 0);
    }
}

}  // namespace
}  // namespace fovea::kernels
