// Axial attention: the definition against dense attention, numbers worked by hand and finite differences, the SIMD
// kernels against the definition in double on every instruction set of the machine.
#include "fovea/kernels/axial_attention.h"

#include <gtest/gtest.h>

#include "cpu_support.h"
#include "problems.h"

namespace fovea::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

struct AxialShape {
  int64_t B = 1, R = 3, L = 5, H = 2, C = 4;
  AlignmentAxis axis = AlignmentAxis::kResidues;
  bool tied = false, bias = false, mask = false;
  bool bias_by_sample = true, bias_by_head = true;

  int64_t n() const { return axis == AlignmentAxis::kResidues ? L : R; }
  std::string text() const {
    std::ostringstream s;
    s << "B " << B << " R " << R << " L " << L << " H " << H << " C " << C
      << (axis == AlignmentAxis::kResidues ? " residues" : " sequences") << (tied ? " tied" : "")
      << (mask ? " mask" : "");
    if (bias) s << " bias by sample " << bias_by_sample << " by head " << bias_by_head;
    return s.str();
  }
};

template <class T>
struct AxialProblem {
  AxialShape shape;
  double scale;
  std::vector<T> qkv, bias, out, lse, grad_out, grad_qkv, grad_bias;
  std::vector<uint8_t> mask;

  AxialProblem(const AxialShape& s, uint64_t seed)
      : shape(s), scale(1 / std::sqrt(double(s.C) * (s.tied ? double(s.R * s.L / std::max<int64_t>(1, s.n())) : 1))) {
    Rng rng(seed, 0, 0);
    qkv.resize(s.B * s.R * s.L * 3 * s.H * s.C), out.resize(qkv.size() / 3), grad_out.resize(out.size());
    lse.resize(s.B * (s.tied ? 1 : s.R * s.L / std::max<int64_t>(1, s.n())) * s.H * s.n()), grad_qkv.resize(qkv.size());
    if (s.bias) bias.resize((s.bias_by_sample ? s.B : 1) * (s.bias_by_head ? s.H : 1) * s.n() * s.n());
    grad_bias.resize(bias.size());
    fill_normal(qkv, rng), fill_normal(bias, rng), fill_normal(grad_out, rng);
    if (s.mask) {
      mask.resize(s.B * s.R * s.L);
      for (uint8_t& m : mask) m = rng.below(4) != 0;
    }
  }
  template <class From>
  explicit AxialProblem(const AxialProblem<From>& p)
      : shape(p.shape),
        scale(p.scale),
        qkv(converted<T>(p.qkv)),
        bias(converted<T>(p.bias)),
        out(p.out.size()),
        lse(p.lse.size()),
        grad_out(converted<T>(p.grad_out)),
        grad_qkv(p.qkv.size()),
        grad_bias(p.bias.size()),
        mask(p.mask) {}

  std::array<int64_t, 4> bias_stride() const {
    const int64_t nn = shape.n() * shape.n();
    const int64_t by_head = shape.bias_by_head ? nn : 0;
    return {shape.bias_by_sample ? (shape.bias_by_head ? shape.H : 1) * nn : 0, by_head, shape.n(), 1};
  }
  AxialAttentionParams<T> params() {
    const auto& s = shape;
    AxialAttentionParams<T> p;
    p.qkv = View<const T, 6>::contiguous(qkv.data(), {s.B, s.R, s.L, 3, s.H, s.C});
    p.axis = s.axis, p.tied = s.tied, p.scale = scale;
    if (!bias.empty()) p.pair_bias = {bias.data(), {s.B, s.H, s.n(), s.n()}, bias_stride()};
    if (!mask.empty()) p.mask = View<const uint8_t, 3>::contiguous(mask.data(), {s.B, s.R, s.L});
    p.out = View<T, 5>::contiguous(out.data(), {s.B, s.R, s.L, s.H, s.C});
    p.lse = View<T, 4>::contiguous(lse.data(), {s.B, s.tied ? 1 : p.others(), s.H, s.n()});
    return p;
  }
  AxialAttentionBackwardParams<T> backward_params() {
    AxialAttentionBackwardParams<T> g;
    g.forward = params();
    g.grad_out = View<const T, 5>::contiguous(grad_out.data(), g.forward.out.shape);
    g.grad_qkv = View<T, 6>::contiguous(grad_qkv.data(), g.forward.qkv.shape);
    if (!bias.empty()) g.grad_pair_bias = {grad_bias.data(), g.forward.pair_bias.shape, bias_stride()};
    return g;
  }
  int64_t token(int64_t b, int64_t r, int64_t l) const { return (b * shape.R + r) * shape.L + l; }
};

template <class T>
void define(AxialProblem<T>& p) {
  reference::axial_attention_forward(p.params());
  reference::axial_attention_backward(p.backward_params());
}

void run(AxialProblem<float>& p, Isa isa, const ParallelFor& parallel = serial_for) {
  cpu::axial_attention_forward(p.params(), parallel, isa);
  cpu::axial_attention_backward(p.backward_params(), parallel, isa);
}

void expect_matches_reference(AxialProblem<float>& p, Isa isa) {
  AxialProblem<double> truth(p);
  define(truth);
  run(p, isa);
  const std::string where = name_of(isa) + ": " + p.shape.text();
  EXPECT_LE(relative_error(p.out, truth.out), 2e-6) << where;
  EXPECT_LE(relative_error(p.lse, truth.lse), 2e-6) << where;
  EXPECT_LE(relative_error(p.grad_qkv, truth.grad_qkv), 5e-6) << where;
  EXPECT_LE(relative_error(p.grad_bias, truth.grad_bias), 5e-6) << where;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

AxialShape random_shape(Rng& rng, int64_t most) {
  AxialShape s;
  s.B = 1 + rng.below(2), s.H = 1 + rng.below(3), s.C = 1 + rng.below(40);
  s.R = 1 + rng.below(rng.chance(0.5f) ? most : 6), s.L = 1 + rng.below(s.R > 6 ? 6 : most);
  s.axis = rng.chance(0.5f) ? AlignmentAxis::kResidues : AlignmentAxis::kSequences;
  s.tied = rng.chance(0.6f), s.mask = rng.chance(0.4f), s.bias = rng.chance(0.6f);
  s.bias_by_sample = rng.chance(0.5f), s.bias_by_head = rng.chance(0.6f);
  return s;
}

TEST(AxialAttention, ATiedMapOfTwoSequencesMatchesNumbersWorkedByHand) {
  // Keys 1 and 0 in both sequences, queries all ln 3 / 2: summed over the sequences, scores are ln 3 and 0.
  AxialShape s;
  s.R = s.L = 2, s.H = s.C = 1, s.tied = true;
  AxialProblem<double> p(s, 1);
  const double q = std::log(3.0) / 2;
  p.scale = 1, p.qkv = {q, 1, 4, q, 0, 8, q, 1, -4, q, 0, 0};
  define(p);
  const std::vector<double> out = {5, 5, -3, -3}, lse = {std::log(4.0), std::log(4.0)};
  EXPECT_LT(relative_error(p.out, out), 1e-15);
  EXPECT_LT(relative_error(p.lse, lse), 1e-15);
  // Untied, each sequence has scores ln 3 / 2 and 0: weights sqrt 3 and 1 over their sum.
  p.shape.tied = false, p.lse.resize(4);
  reference::axial_attention_forward(p.params());
  EXPECT_NEAR(p.out[0], (std::sqrt(3.0) * 4 + 8) / (std::sqrt(3.0) + 1), 1e-14);
}

TEST(AxialAttention, UntiedIsDenseAttentionOfEachPlace) {
  for (AlignmentAxis axis : {AlignmentAxis::kResidues, AlignmentAxis::kSequences}) {
    AxialShape s;
    s.axis = axis, s.mask = s.bias = true;
    AxialProblem<double> p(s, 2);
    reference::axial_attention_forward(p.params());
    const auto whole = p.params();
    const bool residues = axis == AlignmentAxis::kResidues;
    for (int64_t place = 0; place < whole.others(); ++place) {
      AttentionParams<double> d;
      const auto part = [&](int which) {
        const auto& v = whole.qkv;
        return View<const double, 4>{v.data + place * v.stride[residues ? 1 : 2] + which * v.stride[3],
                                     {1, s.H, s.n(), s.C},
                                     {0, v.stride[4], v.stride[residues ? 2 : 1], 1}};
      };
      d.q = part(0), d.k = part(1), d.v = part(2), d.scale = p.scale, d.bias = whole.pair_bias;
      const int64_t step = residues ? 1 : s.L;
      d.key_mask = {p.mask.data() + place * (residues ? s.L : 1), {1, s.n()}, {0, step}};
      std::vector<double> out(s.H * s.n() * s.C), lse(s.H * s.n());
      d.out = View<double, 4>::contiguous(out.data(), {1, s.H, s.n(), s.C});
      d.lse = View<double, 3>::contiguous(lse.data(), {1, s.H, s.n()});
      reference::attention_forward(d);
      for (int64_t h = 0; h < s.H; ++h)
        for (int64_t i = 0; i < s.n(); ++i) {
          EXPECT_EQ(whole.lse(0, place, h, i), d.lse(0, h, i));
          for (int64_t c = 0; c < s.C; ++c)
            EXPECT_EQ(residues ? whole.out(0, place, i, h, c) : whole.out(0, i, place, h, c), d.out(0, h, i, c));
        }
    }
  }
}

TEST(AxialAttention, GradientsMatchFiniteDifferencesOnEveryInput) {
  for (AlignmentAxis axis : {AlignmentAxis::kResidues, AlignmentAxis::kSequences})
    for (bool tied : {false, true})
      for (bool shared : {false, true}) {
        AxialShape s;
        s.B = 2, s.R = 3, s.L = 4, s.C = 2, s.axis = axis, s.tied = tied, s.mask = s.bias = true;
        s.bias_by_sample = !shared, s.bias_by_head = !shared;
        AxialProblem<double> p(s, 3);
        define(p);
        const auto loss = [&] {
          reference::axial_attention_forward(p.params());
          double sum = 0;
          for (size_t i = 0; i < p.out.size(); ++i) sum += p.out[i] * p.grad_out[i];
          return sum;
        };
        EXPECT_LT(worst_finite_difference(p.qkv, p.grad_qkv, loss), 1e-8) << s.text();
        EXPECT_LT(worst_finite_difference(p.bias, p.grad_bias, loss), 1e-8) << s.text();
      }
}

TEST(AxialAttention, VectorCodeMatchesTheDefinitionOnRandomShapes) {
  const int shapes = sweep_length(200, 10000);
  for (Isa isa : testable_isas())
    for (int i = 0; i < shapes; ++i) {
      Rng rng(20240631, 0, i, static_cast<uint32_t>(isa));
      AxialProblem<float> p(random_shape(rng, i % 10 ? 30 : 130), i);
      expect_matches_reference(p, isa);
      ASSERT_FALSE(HasFailure()) << "shape " << i;
    }
}

TEST(AxialAttention, TiedMapsMatchTheDefinitionOnBothSidesOfEveryTileEdge) {
  for (Isa isa : testable_isas())
    for (int64_t tile : {4, 8, 16, 32, 48, 64})
      for (int64_t n : {tile - 1, tile, tile + 1, 3 * tile + 2})
        for (bool extras : {false, true}) {
          AxialShape s;
          s.H = 1, s.L = n, s.R = 2, s.C = 8, s.tied = true, s.bias = s.mask = extras;
          AxialProblem<float> p(s, n);
          expect_matches_reference(p, isa);
        }
}

TEST(AxialAttention, TiedMapsMatchTheDefinitionForEveryNumberOfChannels) {
  for (Isa isa : testable_isas())
    for (int64_t C = 1; C <= 200; C += C < 34 ? 1 : 13) {
      AxialShape s;
      s.H = 1, s.L = 19, s.R = 3, s.C = C, s.tied = true;
      AxialProblem<float> p(s, C);
      expect_matches_reference(p, isa);
    }
}

TEST(AxialAttention, TiedMapsOfManySequencesStayExact) {
  for (Isa isa : testable_isas()) {
    AxialShape s;
    s.H = 1, s.L = 21, s.R = 600, s.C = 8, s.tied = true;
    AxialProblem<float> p(s, 5);
    expect_matches_reference(p, isa);
  }
}

TEST(AxialAttention, ASingleOpenKeyHasNoScoreGradientHoweverManyPlacesShareTheMap) {
  for (Isa isa : testable_isas())
    for (int64_t n : {1, 20, 100}) {  // 100: more keys than a block
      AxialShape s;
      s.L = n, s.R = 50, s.C = 40, s.tied = s.bias = s.mask = true;
      AxialProblem<float> p(s, 13);
      for (int64_t t = 0; t < s.R * s.L; ++t) p.mask[t] = t % n == 0;
      run(p, isa);
      for (float x : p.grad_bias) ASSERT_EQ(x, 0) << name_of(isa) << ' ' << n;
      for (int64_t t = 0; t < s.R * s.L; ++t)
        for (int64_t c = 0; c < 2 * s.H * s.C; ++c) ASSERT_EQ(p.grad_qkv[t * 3 * s.H * s.C + c], 0) << name_of(isa);
    }
}

TEST(AxialAttention, GradientsOfTiedScoresThatFloatsCannotTellApartAreFinite) {
  for (Isa isa : testable_isas())
    for (int64_t n : {20, 100}) {
      AxialShape s;
      s.L = n, s.R = 5, s.C = 16, s.tied = s.bias = true;
      AxialProblem<float> p(s, 17);
      for (float& x : p.qkv) x *= 1e5f;
      run(p, isa);
      for (const auto* gradient : {&p.grad_qkv, &p.grad_bias})
        for (float x : *gradient) ASSERT_TRUE(std::isfinite(x)) << name_of(isa) << ' ' << n;
    }
}

TEST(AxialAttention, SequencesOfAnAlignmentAreResiduesOfItsTransposeToTheBit) {
  for (Isa isa : testable_isas())
    for (bool tied : {false, true}) {
      AxialShape s;
      s.B = 2, s.R = 21, s.L = 9, s.tied = tied, s.mask = s.bias = true;
      s.axis = AlignmentAxis::kSequences;
      AxialProblem<float> p(s, 6);
      AxialShape t = s;
      std::swap(t.R, t.L), t.axis = AlignmentAxis::kResidues;
      AxialProblem<float> turned(t, 6);
      const int64_t row = 3 * s.H * s.C;
      for (int64_t b = 0; b < s.B; ++b)
        for (int64_t r = 0; r < s.R; ++r)
          for (int64_t l = 0; l < s.L; ++l) {
            const int64_t from = p.token(b, r, l), to = turned.token(b, l, r);
            std::copy_n(p.qkv.begin() + from * row, row, turned.qkv.begin() + to * row);
            std::copy_n(p.grad_out.begin() + from * row / 3, row / 3, turned.grad_out.begin() + to * row / 3);
            turned.mask[to] = p.mask[from];
          }
      turned.bias = p.bias, turned.scale = p.scale;
      run(p, isa), run(turned, isa);
      for (int64_t b = 0; b < s.B; ++b)
        for (int64_t r = 0; r < s.R; ++r)
          for (int64_t l = 0; l < s.L; ++l)
            for (int64_t c = 0; c < row; ++c) {
              ASSERT_EQ(p.grad_qkv[p.token(b, r, l) * row + c], turned.grad_qkv[turned.token(b, l, r) * row + c]);
              ASSERT_EQ(p.out[p.token(b, r, l) * row / 3 + c / 3], turned.out[turned.token(b, l, r) * row / 3 + c / 3]);
            }
      EXPECT_TRUE(same_bits(p.grad_bias, turned.grad_bias)) << name_of(isa);
    }
}

TEST(AxialAttention, TiedNeverReadsAMaskedToken) {
  for (Isa isa : testable_isas())
    for (AlignmentAxis axis : {AlignmentAxis::kResidues, AlignmentAxis::kSequences}) {
      AxialShape s;
      s.B = 2, s.R = s.L = 20, s.axis = axis, s.tied = s.mask = s.bias = true;
      AxialProblem<float> clean(s, 7);
      for (int64_t r = 0; r < s.R; ++r) clean.mask[clean.token(0, r, 3)] = 0;  // a residue masked everywhere
      for (int64_t l = 0; l < s.L; ++l) clean.mask[clean.token(0, 5, l)] = 0;  // a whole sequence
      AxialProblem<float> dirty = clean;
      const int64_t row = 3 * s.H * s.C;
      for (int64_t t = 0; t < s.B * s.R * s.L; ++t)
        if (!clean.mask[t]) std::fill_n(dirty.qkv.begin() + t * row, row, t % 2 ? kNaN : kInfinity);
      run(clean, isa), run(dirty, isa);
      EXPECT_TRUE(same_bits(clean.out, dirty.out)) << name_of(isa);
      EXPECT_TRUE(same_bits(clean.lse, dirty.lse)) << name_of(isa);
      EXPECT_TRUE(same_bits(clean.grad_qkv, dirty.grad_qkv)) << name_of(isa);
      EXPECT_TRUE(same_bits(clean.grad_bias, dirty.grad_bias)) << name_of(isa);
      for (int64_t t = 0; t < s.B * s.R * s.L; ++t)
        for (int64_t c = 0; c < row && !clean.mask[t]; ++c) ASSERT_EQ(dirty.grad_qkv[t * row + c], 0) << name_of(isa);
    }
}

TEST(AxialAttention, UntiedNeverReadsAMaskedKeyOrValue) {
  for (Isa isa : testable_isas()) {
    AxialShape s;
    s.R = 4, s.L = 20, s.mask = true;
    AxialProblem<float> clean(s, 8), dirty = clean;
    const int64_t row = s.H * s.C;
    for (int64_t t = 0; t < s.R * s.L; ++t)
      if (!clean.mask[t]) std::fill_n(dirty.qkv.begin() + t * 3 * row + row, 2 * row, kNaN);
    run(clean, isa), run(dirty, isa);
    EXPECT_TRUE(same_bits(clean.out, dirty.out)) << name_of(isa);
    EXPECT_TRUE(same_bits(clean.grad_qkv, dirty.grad_qkv)) << name_of(isa);
  }
}

TEST(AxialAttention, AnAlignmentMaskedThroughoutGivesZeroAndNoGradient) {
  for (Isa isa : testable_isas())
    for (bool tied : {false, true}) {
      AxialShape s;
      s.B = 2, s.L = 18, s.tied = tied, s.mask = s.bias = true;
      AxialProblem<float> p(s, 9);
      std::fill(p.mask.begin(), p.mask.begin() + s.R * s.L, 0);
      run(p, isa);
      for (size_t i = 0; i < p.out.size() / 2; ++i) ASSERT_EQ(p.out[i], 0) << name_of(isa);
      for (size_t i = 0; i < p.lse.size() / 2; ++i) ASSERT_EQ(p.lse[i], -kInfinity) << name_of(isa);
      for (size_t i = 0; i < p.grad_qkv.size() / 2; ++i) ASSERT_EQ(p.grad_qkv[i], 0) << name_of(isa);
      for (size_t i = 0; i < p.grad_bias.size() / 2; ++i) ASSERT_EQ(p.grad_bias[i], 0) << name_of(isa);
    }
}

TEST(AxialAttention, NotANumberInATiedQuerySpoilsItsRowOfTheMapOnly) {
  for (Isa isa : testable_isas()) {
    AxialShape s;
    s.R = 3, s.L = 20, s.H = 1, s.tied = true;
    AxialProblem<float> p(s, 10);
    p.qkv[p.token(0, 1, 7) * 3 * s.C] = kNaN;
    AxialProblem<double> truth(p);
    reference::axial_attention_forward(truth.params());
    cpu::axial_attention_forward(p.params(), serial_for, isa);
    for (size_t i = 0; i < p.out.size(); ++i) ASSERT_EQ(std::isnan(p.out[i]), std::isnan(truth.out[i])) << i;
    for (size_t i = 0; i < p.lse.size(); ++i) ASSERT_EQ(std::isnan(p.lse[i]), i == 7) << i;
  }
}

TEST(AxialAttention, GivesTheSameBitsForAnyNumberOfThreads) {
  for (Isa isa : testable_isas())
    for (bool tied : {false, true})
      for (auto [by_sample, by_head] : {std::pair{true, true}, {false, true}, {true, false}, {false, false}}) {
        AxialShape s;
        s.B = 2, s.R = 6, s.L = 110, s.H = 3, s.C = 8, s.tied = tied, s.bias = s.mask = true;
        s.bias_by_sample = by_sample, s.bias_by_head = by_head;
        AxialProblem<float> once(s, 11);
        run(once, isa);
        for (const int parts : rerun_threads()) {
          AxialProblem<float> again(s, 11);
          run(again, isa, threads(parts));
          EXPECT_TRUE(same_bits(once.out, again.out)) << name_of(isa) << ' ' << parts;
          EXPECT_TRUE(same_bits(once.lse, again.lse)) << name_of(isa) << ' ' << parts;
          EXPECT_TRUE(same_bits(once.grad_qkv, again.grad_qkv)) << name_of(isa) << ' ' << parts;
          EXPECT_TRUE(same_bits(once.grad_bias, again.grad_bias)) << name_of(isa) << ' ' << parts;
        }
      }
}

TEST(AxialAttention, NeverReadsOrWritesBesideItsTensors) {
  const int shapes = sweep_length(60, 10000);
  for (Isa isa : testable_isas())
    for (int i = 0; i < shapes; ++i)
      for (auto guard : {GuardedMemory::Guard::kBefore, GuardedMemory::Guard::kAfter}) {
        Rng rng(20240632, 0, i, static_cast<uint32_t>(isa));
        AxialProblem<float> p(random_shape(rng, 60), i);
        auto g = p.backward_params();
        const GuardedMemory qkv(p.qkv, guard), bias(p.bias, guard), upstream(p.grad_out, guard);
        BandedMemory out(p.out.size()), lse(p.lse.size()), gq(p.qkv.size()), gb(p.bias.size());
        g.forward.qkv.data = qkv.data(), g.grad_out.data = upstream.data(), g.grad_qkv.data = gq.data();
        if (p.shape.bias) g.forward.pair_bias.data = bias.data(), g.grad_pair_bias.data = gb.data();
        g.forward.out.data = out.data(), g.forward.lse.data = lse.data();
        cpu::axial_attention_forward(g.forward, serial_for, isa);
        cpu::axial_attention_backward(g, serial_for, isa);
        for (const BandedMemory* m : {&out, &lse, &gq, &gb}) {
          ASSERT_TRUE(m->intact()) << name_of(isa) << ": " << p.shape.text();
          for (float x : m->values())
            ASSERT_FALSE(std::isnan(x)) << name_of(isa) << ": not written: " << p.shape.text();
        }
      }
}

TEST(AxialAttention, EmptyAlignmentsAreFine) {
  for (Isa isa : testable_isas())
    for (bool tied : {false, true})
      for (int what = 0; what < 4; ++what) {
        AxialShape s;
        (what == 0 ? s.B : what == 1 ? s.R : what == 2 ? s.L : s.H) = 0, s.tied = tied, s.bias = what != 2;
        AxialProblem<float> p(s, 12);
        std::fill(p.grad_bias.begin(), p.grad_bias.end(), 5.f);
        run(p, isa);
        EXPECT_TRUE(p.out.empty());
        for (float x : p.grad_bias) EXPECT_EQ(x, 0) << what;
      }
}

}  // namespace
}  // namespace fovea::kernels
