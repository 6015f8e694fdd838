// Deformable attention: the definition against numbers worked by hand and finite differences, the SIMD kernels against
// the definition in double on every instruction set of the machine.
#include "fovea/kernels/deformable_attention.h"

#include <gtest/gtest.h>

#include "cpu_support.h"
#include "problems.h"

namespace fovea::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

struct DeformableShape {
  int64_t B = 1, Q = 3, H = 2, K = 2, C = 4;
  std::vector<std::vector<int64_t>> levels{{3, 5}};

  int64_t D() const { return static_cast<int64_t>(levels[0].size()); }
  int64_t S() const {
    int64_t sum = 0;
    for (const auto& level : levels) {
      int64_t size = 1;
      for (int64_t n : level) size *= n;
      sum += size;
    }
    return sum;
  }
  std::string text() const {
    std::ostringstream s;
    s << "B " << B << " Q " << Q << " H " << H << " K " << K << " C " << C << " levels";
    for (const auto& level : levels) {
      s << ' ';
      for (int64_t n : level) s << n << ',';
    }
    return s.str();
  }
};

template <class T>
struct DeformableProblem {
  DeformableShape shape;
  std::vector<int64_t> spatial_shapes;
  std::vector<T> value, locations, weights, out, grad_out, grad_value, grad_locations, grad_weights;

  // Locations reach 0.3 beyond the level on every side.
  DeformableProblem(const DeformableShape& s, uint64_t seed) : shape(s) {
    Rng rng(seed, 0, 0);
    for (const auto& level : s.levels) spatial_shapes.insert(spatial_shapes.end(), level.begin(), level.end());
    value.resize(s.B * s.S() * s.H * s.C), out.resize(s.B * s.Q * s.H * s.C), grad_out.resize(out.size());
    weights.resize(s.B * s.Q * s.H * static_cast<int64_t>(s.levels.size()) * s.K);
    locations.resize(weights.size() * s.D());
    grad_value.resize(value.size()), grad_locations.resize(locations.size()), grad_weights.resize(weights.size());
    fill_normal(value, rng), fill_normal(grad_out, rng);
    for (T& x : locations) x = static_cast<T>(1.6 * rng.uniform() - 0.3);
    for (T& w : weights) w = static_cast<T>(rng.uniform());
  }
  template <class From>
  explicit DeformableProblem(const DeformableProblem<From>& p)
      : shape(p.shape),
        spatial_shapes(p.spatial_shapes),
        value(converted<T>(p.value)),
        locations(converted<T>(p.locations)),
        weights(converted<T>(p.weights)),
        out(p.out.size()),
        grad_out(converted<T>(p.grad_out)),
        grad_value(p.value.size()),
        grad_locations(p.locations.size()),
        grad_weights(p.weights.size()) {}

  DeformableAttentionParams<T> params() {
    const auto& s = shape;
    const int64_t levels = static_cast<int64_t>(s.levels.size());
    DeformableAttentionParams<T> p;
    p.value = View<const T, 4>::contiguous(value.data(), {s.B, s.S(), s.H, s.C});
    p.spatial_shapes = View<const int64_t, 2>::contiguous(spatial_shapes.data(), {levels, s.D()});
    p.locations = View<const T, 6>::contiguous(locations.data(), {s.B, s.Q, s.H, levels, s.K, s.D()});
    p.weights = View<const T, 5>::contiguous(weights.data(), {s.B, s.Q, s.H, levels, s.K});
    p.out = View<T, 4>::contiguous(out.data(), {s.B, s.Q, s.H, s.C});
    return p;
  }
  DeformableAttentionBackwardParams<T> backward_params() {
    DeformableAttentionBackwardParams<T> g;
    g.forward = params();
    g.grad_out = View<const T, 4>::contiguous(grad_out.data(), g.forward.out.shape);
    g.grad_value = View<T, 4>::contiguous(grad_value.data(), g.forward.value.shape);
    g.grad_locations = View<T, 6>::contiguous(grad_locations.data(), g.forward.locations.shape);
    g.grad_weights = View<T, 5>::contiguous(grad_weights.data(), g.forward.weights.shape);
    return g;
  }
};

template <class T>
void define(DeformableProblem<T>& p) {
  reference::deformable_attention_forward(p.params());
  reference::deformable_attention_backward(p.backward_params());
}

void run(DeformableProblem<float>& p, Isa isa, const ParallelFor& parallel = serial_for) {
  cpu::deformable_attention_forward(p.params(), parallel, isa);
  cpu::deformable_attention_backward(p.backward_params(), parallel, isa);
}

void expect_matches_reference(DeformableProblem<float>& p, Isa isa) {
  DeformableProblem<double> truth(p);
  define(truth);
  run(p, isa);
  const std::string where = name_of(isa) + ": " + p.shape.text();
  EXPECT_LE(relative_error(p.out, truth.out), 2e-6) << where;
  EXPECT_LE(relative_error(p.grad_value, truth.grad_value), 5e-6) << where;
  EXPECT_LE(relative_error(p.grad_locations, truth.grad_locations), 5e-6) << where;
  EXPECT_LE(relative_error(p.grad_weights, truth.grad_weights), 5e-6) << where;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

DeformableShape random_shape(Rng& rng) {
  DeformableShape s;
  s.B = 1 + rng.below(2), s.Q = 1 + rng.below(30), s.H = 1 + rng.below(4), s.K = 1 + rng.below(4),
  s.C = 1 + rng.below(80);
  s.levels.clear();
  const int D = rng.chance(0.5f) ? 2 : 3;
  for (int levels = 1 + rng.below(3); levels > 0; --levels) {
    s.levels.emplace_back();
    for (int axis = 0; axis < D; ++axis) s.levels.back().push_back(1 + rng.below(9));
  }
  return s;
}

TEST(DeformableAttention, AQuarterOfTheWayBetweenFourPixelsMatchesNumbersWorkedByHand) {
  // Level of 2 rows (y) and 3 columns (x): 0 1 2 / 10 20 30. Pixel (x 1.25, y 0.5) is location (1.75 / 3, 1 / 2).
  DeformableShape s;
  s.Q = s.H = s.K = s.C = 1, s.levels = {{2, 3}};
  DeformableProblem<double> p(s, 1);
  p.value = {0, 1, 2, 10, 20, 30}, p.locations = {1.75 / 3, 0.5}, p.weights = {2}, p.grad_out = {3};
  define(p);
  // Row 0 gives 1.25, row 1 gives 22.5, half-way 11.875.
  EXPECT_NEAR(p.out[0], 2 * 11.875, 1e-12);
  EXPECT_NEAR(p.grad_weights[0], 3 * 11.875, 1e-12);
  EXPECT_NEAR(p.grad_locations[0], 3 * 2 * 3 * (0.5 * 1 + 0.5 * 10), 1e-12);  // x: 3 columns a unit
  EXPECT_NEAR(p.grad_locations[1], 3 * 2 * 2 * (22.5 - 1.25), 1e-12);         // y: 2 rows a unit
  const std::vector<double> grad_value = {0, 6 * 0.375, 6 * 0.125, 0, 6 * 0.375, 6 * 0.125};
  EXPECT_LT(relative_error(p.grad_value, grad_value), 1e-12);
}

TEST(DeformableAttention, ALocationRunsAlongXThenYThenZ) {
  DeformableShape s;
  s.Q = s.H = s.K = s.C = 1, s.levels = {{2, 3, 4}};
  DeformableProblem<double> p(s, 1);
  for (int64_t z = 0; z < 2; ++z)
    for (int64_t y = 0; y < 3; ++y)
      for (int64_t x = 0; x < 4; ++x) {
        p.locations = {(double(x) + 0.5) / 4, (double(y) + 0.5) / 3, (double(z) + 0.5) / 2}, p.weights = {1};
        reference::deformable_attention_forward(p.params());
        EXPECT_NEAR(p.out[0], p.value[(z * 3 + y) * 4 + x], 1e-12);
      }
}

TEST(DeformableAttention, GradientsMatchFiniteDifferencesOnEveryInput) {
  for (const auto& levels : {std::vector<std::vector<int64_t>>{{3, 5}, {2, 2}}, {{2, 3, 4}, {1, 2, 1}}}) {
    DeformableShape s;
    s.B = 2, s.levels = levels;
    DeformableProblem<double> p(s, 2);
    define(p);
    const auto loss = [&] {
      reference::deformable_attention_forward(p.params());
      double sum = 0;
      for (size_t i = 0; i < p.out.size(); ++i) sum += p.out[i] * p.grad_out[i];
      return sum;
    };
    EXPECT_LT(worst_finite_difference(p.value, p.grad_value, loss), 1e-7);
    EXPECT_LT(worst_finite_difference(p.weights, p.grad_weights, loss), 1e-7);
    EXPECT_LT(worst_finite_difference(p.locations, p.grad_locations, loss), 1e-7);
  }
}

TEST(DeformableAttention, VectorCodeMatchesTheDefinitionForEveryNumberOfChannels) {
  for (Isa isa : testable_isas())
    for (const auto& levels : {std::vector<std::vector<int64_t>>{{7, 5}, {3, 2}}, {{4, 3, 5}, {2, 1, 3}}})
      for (int64_t C = 1; C <= 260; C += C < 72 ? 1 : 13) {
        DeformableShape s;
        s.C = C, s.levels = levels;
        DeformableProblem<float> p(s, C);
        expect_matches_reference(p, isa);
      }
}

TEST(DeformableAttention, VectorCodeMatchesTheDefinitionOnRandomShapes) {
  const int shapes = sweep_length(150, 10000);
  for (Isa isa : testable_isas())
    for (int i = 0; i < shapes; ++i) {
      Rng rng(20240621, 0, i, static_cast<uint32_t>(isa));
      DeformableProblem<float> p(random_shape(rng), i);
      expect_matches_reference(p, isa);
      ASSERT_FALSE(HasFailure()) << "shape " << i;
    }
}

TEST(DeformableAttention, WideLevelsLoseNoAccuracyToTheirCoordinates) {
  for (Isa isa : testable_isas()) {
    DeformableShape s;
    s.Q = 200, s.C = 8, s.levels = {{3, 5000}};
    DeformableProblem<float> p(s, 3);
    expect_matches_reference(p, isa);
  }
}

TEST(DeformableAttention, PixelCentresGiveThePixelsAndFarLocationsNothing) {
  for (Isa isa : testable_isas()) {
    DeformableShape s;
    s.Q = 1, s.H = 1, s.K = 1, s.C = 5, s.levels = {{4, 2, 8}};
    DeformableProblem<float> p(s, 4);
    p.weights = {1};
    for (int64_t pixel = 0; pixel < s.S(); ++pixel) {
      p.locations = {(float(pixel % 8) + 0.5f) / 8, (float(pixel / 8 % 2) + 0.5f) / 2, (float(pixel / 16) + 0.5f) / 4};
      cpu::deformable_attention_forward(p.params(), serial_for, isa);
      for (int64_t c = 0; c < s.C; ++c) ASSERT_EQ(p.out[c], p.value[pixel * s.C + c]) << name_of(isa);
    }
    for (float far : {-1e30f, -1.0f, 2.0f, 1e30f, kInfinity, -kInfinity})
      for (int axis = 0; axis < 3; ++axis) {
        p.locations = {0.4f, 0.4f, 0.4f}, p.locations[axis] = far;
        std::fill(p.grad_value.begin(), p.grad_value.end(), kNaN);
        run(p, isa);
        for (float x : p.out) ASSERT_EQ(x, 0) << name_of(isa) << ' ' << far;
        for (float x : p.grad_value) ASSERT_EQ(x, 0) << name_of(isa) << ' ' << far;
        for (float x : p.grad_locations) ASSERT_EQ(x, 0) << name_of(isa) << ' ' << far;
        ASSERT_EQ(p.grad_weights[0], 0);
      }
  }
}

TEST(DeformableAttention, ANotANumberInALocationSpoilsItsQueryAndHeadOnly) {
  for (Isa isa : testable_isas())
    for (int axis = 0; axis < 2; ++axis) {
      DeformableShape s;
      s.Q = 4, s.H = 3;
      DeformableProblem<float> clean(s, 5), p = clean;
      const int64_t point = (2 * s.H + 1) * s.K;  // query 2, head 1, point 0
      p.locations[point * 2 + axis] = kNaN, p.locations[point * 2 + 1 - axis] = 9;
      run(clean, isa), run(p, isa);
      for (int64_t i = 0; i < s.Q * s.H; ++i)
        for (int64_t c = 0; c < s.C; ++c) {
          if (i == 2 * s.H + 1)
            ASSERT_TRUE(std::isnan(p.out[i * s.C + c])) << name_of(isa);
          else
            ASSERT_EQ(p.out[i * s.C + c], clean.out[i * s.C + c]) << name_of(isa);
        }
      EXPECT_TRUE(std::isnan(p.grad_weights[point]) && std::isnan(p.grad_locations[point * 2]));
      EXPECT_FALSE(std::isnan(p.grad_weights[point + 1]) || std::isnan(p.grad_locations[point * 2 + 2]));
      for (float x : p.grad_value) ASSERT_TRUE(std::isfinite(x)) << name_of(isa);
      DeformableProblem<double> truth(p);
      define(truth);
      for (size_t i = 0; i < p.out.size(); ++i) ASSERT_EQ(std::isnan(p.out[i]), std::isnan(truth.out[i]));
    }
}

TEST(DeformableAttention, GivesTheSameBitsForAnyNumberOfThreads) {
  for (Isa isa : testable_isas())
    for (int64_t H : {3, 17}) {  // few and many heads split the gradient of value differently
      DeformableShape s;
      s.B = 2, s.Q = 60, s.H = H, s.C = 40, s.levels = {{3, 4, 2}, {2, 2, 2}};
      DeformableProblem<float> once(s, 6);
      run(once, isa);
      for (const int parts : rerun_threads()) {
        DeformableProblem<float> again(s, 6);
        run(again, isa, threads(parts));
        EXPECT_TRUE(same_bits(once.out, again.out)) << name_of(isa) << ' ' << parts;
        EXPECT_TRUE(same_bits(once.grad_value, again.grad_value)) << name_of(isa) << ' ' << parts;
        EXPECT_TRUE(same_bits(once.grad_locations, again.grad_locations)) << name_of(isa) << ' ' << parts;
        EXPECT_TRUE(same_bits(once.grad_weights, again.grad_weights)) << name_of(isa) << ' ' << parts;
      }
    }
}

TEST(DeformableAttention, ReadsStridedTensors) {
  for (Isa isa : testable_isas()) {
    // Heads before rows in value and out, points fastest in locations and weights reversed in axes.
    DeformableShape s;
    s.B = 2, s.C = 9, s.levels = {{3, 5}, {2, 2}};
    DeformableProblem<float> p(s, 7);
    run(p, isa);
    auto g = p.backward_params();
    const auto packed = g;
    const int64_t S = s.S();
    std::vector<float> value(p.value.size()), locations(p.locations.size()), weights(p.weights.size()),
        out(p.out.size()), upstream(out.size()), gv(value.size()), gl(locations.size()), gw(weights.size());
    const std::array<int64_t, 4> value_stride{S * s.H * s.C, s.C, S * s.C, 1},
        out_stride{s.Q * s.H * s.C, s.C, s.Q * s.C, 1};
    const std::array<int64_t, 6> location_stride{1, 2, 2 * s.Q, 2 * s.Q * s.H, 4 * s.Q * s.H, 8 * s.Q * s.H};
    const std::array<int64_t, 5> weight_stride{1, 2, 2 * s.Q, 2 * s.Q * s.H, 4 * s.Q * s.H};
    g.forward.value = {value.data(), packed.forward.value.shape, value_stride},
    g.grad_value = {gv.data(), g.forward.value.shape, value_stride};
    g.forward.locations = {locations.data(), packed.forward.locations.shape, location_stride};
    g.grad_locations = {gl.data(), packed.forward.locations.shape, location_stride};
    g.forward.weights = {weights.data(), packed.forward.weights.shape, weight_stride},
    g.grad_weights = {gw.data(), g.forward.weights.shape, weight_stride};
    g.forward.out = {out.data(), packed.forward.out.shape, out_stride},
    g.grad_out = {upstream.data(), g.forward.out.shape, out_stride};
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t h = 0; h < s.H; ++h) {
        for (int64_t row = 0; row < S; ++row)
          for (int64_t c = 0; c < s.C; ++c)
            const_cast<float&>(g.forward.value(b, row, h, c)) = packed.forward.value(b, row, h, c);
        for (int64_t q = 0; q < s.Q; ++q) {
          for (int64_t c = 0; c < s.C; ++c) const_cast<float&>(g.grad_out(b, q, h, c)) = packed.grad_out(b, q, h, c);
          for (int64_t l = 0; l < 2; ++l)
            for (int64_t k = 0; k < s.K; ++k) {
              const_cast<float&>(g.forward.weights(b, q, h, l, k)) = packed.forward.weights(b, q, h, l, k);
              for (int64_t axis = 0; axis < 2; ++axis)
                const_cast<float&>(g.forward.locations(b, q, h, l, k, axis)) =
                    packed.forward.locations(b, q, h, l, k, axis);
            }
        }
      }
    cpu::deformable_attention_forward(g.forward, serial_for, isa);
    cpu::deformable_attention_backward(g, serial_for, isa);
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t h = 0; h < s.H; ++h) {
        for (int64_t row = 0; row < S; ++row)
          for (int64_t c = 0; c < s.C; ++c) ASSERT_EQ(g.grad_value(b, row, h, c), packed.grad_value(b, row, h, c));
        for (int64_t q = 0; q < s.Q; ++q) {
          for (int64_t c = 0; c < s.C; ++c) ASSERT_EQ(g.forward.out(b, q, h, c), packed.forward.out(b, q, h, c));
          for (int64_t l = 0; l < 2; ++l)
            for (int64_t k = 0; k < s.K; ++k) {
              ASSERT_EQ(g.grad_weights(b, q, h, l, k), packed.grad_weights(b, q, h, l, k));
              for (int64_t axis = 0; axis < 2; ++axis)
                ASSERT_EQ(g.grad_locations(b, q, h, l, k, axis), packed.grad_locations(b, q, h, l, k, axis));
            }
        }
      }
  }
}

TEST(DeformableAttention, NeverReadsOrWritesBesideItsTensors) {
  const int shapes = sweep_length(60, 10000);
  for (Isa isa : testable_isas())
    for (int i = 0; i < shapes; ++i)
      for (auto guard : {GuardedMemory::Guard::kBefore, GuardedMemory::Guard::kAfter}) {
        Rng rng(20240622, 0, i, static_cast<uint32_t>(isa));
        DeformableProblem<float> p(random_shape(rng), i);
        auto g = p.backward_params();
        const GuardedMemory value(p.value, guard), locations(p.locations, guard), weights(p.weights, guard),
            upstream(p.grad_out, guard);
        BandedMemory out(p.out.size()), gv(p.value.size()), gl(p.locations.size()), gw(p.weights.size());
        g.forward.value.data = value.data(), g.forward.locations.data = locations.data();
        g.forward.weights.data = weights.data(), g.grad_out.data = upstream.data(), g.forward.out.data = out.data();
        g.grad_value.data = gv.data(), g.grad_locations.data = gl.data(), g.grad_weights.data = gw.data();
        cpu::deformable_attention_forward(g.forward, serial_for, isa);
        cpu::deformable_attention_backward(g, serial_for, isa);
        for (const BandedMemory* m : {&out, &gv, &gl, &gw}) {
          ASSERT_TRUE(m->intact()) << name_of(isa) << ": " << p.shape.text();
          for (float x : m->values())
            ASSERT_FALSE(std::isnan(x)) << name_of(isa) << ": not written: " << p.shape.text();
        }
      }
}

TEST(DeformableAttention, EmptyBatchQueriesPointsLevelsAndChannelsAreFine) {
  for (Isa isa : testable_isas())
    for (int what = 0; what < 5; ++what) {
      DeformableShape s;
      (what == 0 ? s.B : what == 1 ? s.Q : what == 2 ? s.K : what == 3 ? s.levels[0][1] : s.C) = 0;
      DeformableProblem<float> p(s, 8);
      for (auto* x : {&p.out, &p.grad_value, &p.grad_weights}) std::fill(x->begin(), x->end(), 5.f);
      run(p, isa);
      for (float x : p.out) EXPECT_EQ(x, 0) << what;
      for (float x : p.grad_value) EXPECT_EQ(x, 0) << what;
      for (float x : p.grad_weights) EXPECT_EQ(x, 0) << what;
    }
}

}  // namespace
}  // namespace fovea::kernels
