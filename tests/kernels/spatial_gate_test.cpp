#include "fovea/kernels/spatial_gate.h"

#include <gtest/gtest.h>

#include "cpu_support.h"
#include "problems.h"

namespace fovea::kernels {
namespace {

struct Sizes {
  int64_t B, Z, Y, X, C, kz, ky, kx;
};

template <class T>
struct GateProblem {
  Sizes s;
  std::vector<T> x, weight, out, map, pooled, grad_pooled, grad_x;
  double scale = 0.7, shift = -0.3;

  explicit GateProblem(const Sizes& sizes) : s(sizes) {
    Rng rng(5, 0, 0);
    x.resize(size_t(voxels() * s.C)), weight.resize(size_t(2 * s.kz * s.ky * s.kx));
    out.resize(x.size()), grad_x.resize(x.size()), map.resize(size_t(voxels()));
    pooled.resize(2 * map.size()), grad_pooled.resize(2 * map.size());
    for (auto* values : {&x, &grad_pooled}) fill_normal(*values, rng);
    fill_normal(weight, rng, 1 / std::sqrt(double(weight.size())));  // as layers draw them: logits of size 1
  }
  template <class U>
  static GateProblem from(const GateProblem<U>& other) {
    GateProblem p(other.s);
    p.x = converted<T>(other.x), p.weight = converted<T>(other.weight);
    p.grad_pooled = converted<T>(other.grad_pooled);
    return p;
  }
  int64_t voxels() const { return s.B * s.Z * s.Y * s.X; }

  SpatialGateParams<T> params() {
    return {View<const T, 5>::contiguous(x.data(), {s.B, s.Z, s.Y, s.X, s.C}),
            View<const T, 4>::contiguous(weight.data(), {2, s.kz, s.ky, s.kx}), scale, shift,
            View<T, 5>::contiguous(out.data(), {s.B, s.Z, s.Y, s.X, s.C}),
            View<T, 4>::contiguous(map.data(), {s.B, s.Z, s.Y, s.X})};
  }
  ChannelPoolParams<T> pool() {
    const int64_t V = s.Z * s.Y * s.X;
    return {View<const T, 3>::contiguous(x.data(), {s.B, V, s.C}),
            View<T, 3>::contiguous(pooled.data(), {s.B, 2, V})};
  }
  ChannelPoolBackwardParams<T> pool_backward() {
    const int64_t V = s.Z * s.Y * s.X;
    return {pool(), View<const T, 3>::contiguous(grad_pooled.data(), {s.B, 2, V}),
            View<T, 3>::contiguous(grad_x.data(), {s.B, V, s.C})};
  }
};

TEST(ChannelPool, TakesLargestAndMeanAndSharesTheGradientAmongTies) {
  GateProblem<double> p({1, 1, 1, 2, 4, 1, 1, 1});
  p.x = {1, 5, 5, 1, -2, -8, -6, 0};
  reference::channel_pool_forward(p.pool());
  EXPECT_EQ(p.pooled, (std::vector<double>{5, 0, 3, -4}));
  p.grad_pooled = {6, 1, 8, 0};  // of the largest, then of the mean
  reference::channel_pool_backward(p.pool_backward());
  EXPECT_EQ(p.grad_x, (std::vector<double>{2, 5, 5, 2, 0, 0, 0, 1}));
}

TEST(ChannelPool, NanIsTheLargestAndTheMeanButInfinitiesOfBothSignsHaveALargest) {
  for (const Isa isa : testable_isas())
    for (const int64_t C : {3, 16, 19, 37})
      for (int64_t channel = 0; channel + 1 < C; ++channel) {
        GateProblem<float> p({1, 1, 1, 7, C, 1, 1, 1});
        p.x[size_t(2 * C + channel)] = NAN;
        p.x[size_t(6 * C + channel)] = INFINITY, p.x[size_t(6 * C + channel) + 1] = -INFINITY;
        auto expected = GateProblem<double>::from(p);
        reference::channel_pool_forward(expected.pool());
        cpu::channel_pool_forward(p.pool(), serial_for, isa);
        ASSERT_TRUE(std::isnan(p.pooled[2]) && std::isnan(p.pooled[7 + 2])) << C << ", channel " << channel << " on " << name_of(isa);
        ASSERT_EQ(p.pooled[6], INFINITY);
        ASSERT_TRUE(std::isnan(p.pooled[7 + 6]));
        for (const size_t v : {0, 1, 3, 4, 5}) ASSERT_EQ(p.pooled[v], float(expected.pooled[v]));
      }
}

TEST(ChannelPool, GradientMatchesFiniteDifferences) {
  GateProblem<double> p({2, 1, 2, 3, 5, 1, 1, 1});
  reference::channel_pool_forward(p.pool());
  reference::channel_pool_backward(p.pool_backward());
  const auto loss = [&] {
    reference::channel_pool_forward(p.pool());
    double sum = 0;
    for (size_t i = 0; i < p.pooled.size(); ++i) sum += p.pooled[i] * p.grad_pooled[i];
    return sum;
  };
  EXPECT_LT(worst_finite_difference(p.x, p.grad_x, loss), 1e-6);
}

TEST(SpatialGate, TwoWeightsMatchNumbersWorkedByHand) {
  // Largest 3, mean 2: 0.5 * 3 - 1 * 2 = -0.5; times 2, plus 1: 0, whose sigmoid is a half.
  GateProblem<double> p({1, 1, 1, 1, 2, 1, 1, 1});
  p.x = {1, 3}, p.weight = {0.5, -1}, p.scale = 2, p.shift = 1;
  reference::spatial_gate_forward(p.params());
  EXPECT_EQ(p.map[0], 0.5);
  EXPECT_EQ(p.out, (std::vector<double>{0.5, 1.5}));
}

TEST(SpatialGate, VectorCodeMatchesTheDefinitionOnAndOffTheTileForEveryTargetAndSplit) {
  for (const Sizes& s : std::vector<Sizes>{{1, 1, 1, 1, 1, 1, 1, 1},
                                           {2, 5, 6, 17, 3, 3, 3, 3},
                                           {1, 4, 4, 16, 16, 3, 3, 3},
                                           {2, 9, 7, 33, 17, 7, 7, 7},
                                           {1, 2, 9, 15, 48, 7, 7, 7},  // fewer planes than taps
                                           {2, 1, 11, 19, 20, 1, 7, 7},
                                           {1, 6, 5, 8, 12, 5, 5, 5},
                                           {1, 3, 10, 20, 33, 1, 1, 1},
                                           {1, 4, 3, 40, 9, 3, 9, 11}}) {
    GateProblem<float> source(s);
    auto expected = GateProblem<double>::from(source);
    reference::spatial_gate_forward(expected.params());
    reference::channel_pool_forward(expected.pool());
    reference::channel_pool_backward(expected.pool_backward());
    for (const Isa isa : testable_isas()) {
      auto p = source;
      cpu::spatial_gate_forward(p.params(), serial_for, isa);
      const std::string at = name_of(isa) + " C " + std::to_string(s.C) + " X " + std::to_string(s.X);
      EXPECT_LT(relative_error(p.map, expected.map), 2e-6) << at;
      EXPECT_LT(relative_error(p.out, expected.out), 2e-6) << at;
      cpu::channel_pool_forward(p.pool(), serial_for, isa);
      EXPECT_LT(relative_error(p.pooled, expected.pooled), 1e-6) << at;
      cpu::channel_pool_backward(p.pool_backward(), serial_for, isa);
      EXPECT_LT(relative_error(p.grad_x, expected.grad_x), 1e-6) << at;
      auto split = source;
      cpu::spatial_gate_forward(split.params(), threads(3), isa);
      EXPECT_EQ(split.out, p.out) << at;
      EXPECT_EQ(split.map, p.map) << at;
    }
  }
}

TEST(SpatialGate, ResultsTooLargeForTheCacheMatchTheDefinitionToo) {
  GateProblem<float> source({1, 9, 100, 98, 48, 3, 3, 3});  // 4.2 million values
  auto expected = GateProblem<double>::from(source);
  reference::spatial_gate_forward(expected.params());
  for (const Isa isa : testable_isas()) {
    auto p = source;
    std::vector<float> out(p.out.size() + 16);
    auto params = p.params();
    params.out.data = out.data() + (16 - reinterpret_cast<uintptr_t>(out.data()) / 4 % 16) % 16;
    cpu::spatial_gate_forward(params, threads(2), isa);
    std::copy_n(params.out.data, p.out.size(), p.out.begin());
    EXPECT_LT(relative_error(p.out, expected.out), 2e-6);
  }
}

TEST(SpatialGate, NanReachesItsNeighbourhoodAndNothingElse) {
  for (const Isa isa : testable_isas())
    for (const int64_t channel : {0, 15, 16, 18}) {
      GateProblem<float> p({1, 5, 6, 20, 19, 3, 3, 3});
      p.x[((2 * 6 + 3) * 20 + 10) * 19 + channel] = NAN;
      cpu::spatial_gate_forward(p.params(), serial_for, isa);
      for (int64_t z = 0; z < 5; ++z)
        for (int64_t y = 0; y < 6; ++y)
          for (int64_t x = 0; x < 20; ++x) {
            const bool near = std::abs(z - 2) <= 1 && std::abs(y - 3) <= 1 && std::abs(x - 10) <= 1;
            EXPECT_EQ(std::isnan(p.map[(z * 6 + y) * 20 + x]), near) << z << y << x;
          }
    }
}

TEST(SpatialGate, ReadsAndWritesNothingBesideItsMemory) {
  for (const Isa isa : testable_isas()) {
    GateProblem<float> p({1, 3, 5, 7, 19, 3, 3, 3});
    const GuardedMemory x(p.x, GuardedMemory::Guard::kAfter), out(p.out, GuardedMemory::Guard::kAfter),
        map(p.map, GuardedMemory::Guard::kAfter), weight(p.weight, GuardedMemory::Guard::kAfter);
    auto params = p.params();
    params.x.data = x.data(), params.out.data = out.data(), params.map.data = map.data(), params.weight.data = weight.data();
    cpu::spatial_gate_forward(params, serial_for, isa);
    EXPECT_FALSE(std::isnan(out.data()[0]));
  }
}

}  // namespace
}  // namespace fovea::kernels
