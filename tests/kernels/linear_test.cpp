#include "fovea/kernels/linear.h"

#include <gtest/gtest.h>

#include "cpu_support.h"
#include "fovea/kernels/mlp.h"
#include "problems.h"

namespace fovea::kernels {
namespace {

// Both layers on the same inputs: the linear layer is `weight1` alone.
template <class T>
struct RowsProblem {
  int64_t N, E, M, O;
  bool norm = true, biases = true, residual = true;
  std::vector<T> x, weight1, bias1, weight2, bias2, norm_weight, norm_bias, added, grad_linear, grad_mlp;
  std::vector<T> linear, mlp, grad_x, grad_weight1, grad_bias1, grad_weight2, grad_bias2, grad_norm_weight, grad_norm_bias;

  RowsProblem(int64_t n, int64_t e, int64_t m, int64_t o) : N(n), E(e), M(m), O(o) {
    Rng rng(11, 0, 0);
    x.resize(n * e), weight1.resize(m * e), bias1.resize(m), weight2.resize(o * m), bias2.resize(o);
    norm_weight.resize(e), norm_bias.resize(e), added.resize(n * m), grad_linear.resize(n * m), grad_mlp.resize(n * o);
    for (auto* values : {&x, &bias1, &bias2, &norm_weight, &norm_bias, &added, &grad_linear, &grad_mlp}) fill_normal(*values, rng);
    fill_normal(weight1, rng, 1 / std::sqrt(double(e)));
    fill_normal(weight2, rng, 1 / std::sqrt(double(m)));
    make_outputs();
  }
  void make_outputs() {
    linear.assign(N * M, T(7)), mlp.assign(N * O, T(7)), grad_x.assign(N * E, T(7));
    grad_weight1.assign(M * E, T(7)), grad_bias1.assign(M, T(7)), grad_weight2.assign(O * M, T(7));
    grad_bias2.assign(O, T(7)), grad_norm_weight.assign(E, T(7)), grad_norm_bias.assign(E, T(7));
  }
  RowsProblem<double> exact() const {
    RowsProblem<double> p(N, E, M, O);
    p.norm = norm, p.biases = biases, p.residual = residual;
    p.x = converted<double>(x), p.weight1 = converted<double>(weight1), p.bias1 = converted<double>(bias1);
    p.weight2 = converted<double>(weight2), p.bias2 = converted<double>(bias2), p.added = converted<double>(added);
    p.norm_weight = converted<double>(norm_weight), p.norm_bias = converted<double>(norm_bias);
    p.grad_linear = converted<double>(grad_linear), p.grad_mlp = converted<double>(grad_mlp);
    return p;
  }

  template <class V>
  static auto rows(V& values, int64_t n, int64_t c) { return View<std::remove_reference_t<decltype(values[0])>, 2>::contiguous(values.data(), {n, c}); }
  template <class V>
  static auto row(V& values) { return View<std::remove_reference_t<decltype(values[0])>, 1>::contiguous(values.data(), {int64_t(values.size())}); }

  LayerNorm<T> layer_norm() { return norm ? LayerNorm<T>{row(norm_weight), row(norm_bias), 1e-5} : LayerNorm<T>{}; }

  LinearParams<T> linear_params() {
    LinearParams<T> p;
    p.x = rows(x, N, E), p.weight = rows(weight1, M, E), p.norm = layer_norm(), p.out = rows(linear, N, M);
    if (biases) p.bias = row(bias1);
    if (residual) p.residual = rows(added, N, M);
    return p;
  }
  LinearBackwardParams<T> linear_backward_params() {
    LinearBackwardParams<T> g;
    g.forward = linear_params();
    g.grad_out = rows(grad_linear, N, M), g.grad_x = rows(grad_x, N, E), g.grad_weight = rows(grad_weight1, M, E);
    if (biases) g.grad_bias = row(grad_bias1);
    if (norm) g.grad_norm = {row(grad_norm_weight), row(grad_norm_bias)};
    return g;
  }
  MlpParams<T> mlp_params() {
    MlpParams<T> p;
    p.x = rows(x, N, E), p.weight1 = rows(weight1, M, E), p.weight2 = rows(weight2, O, M), p.norm = layer_norm();
    if (biases) p.bias1 = row(bias1), p.bias2 = row(bias2);
    p.add_input = residual && O == E;
    p.out = rows(mlp, N, O);
    return p;
  }
  MlpBackwardParams<T> mlp_backward_params() {
    MlpBackwardParams<T> g;
    g.forward = mlp_params();
    g.grad_out = rows(grad_mlp, N, O), g.grad_x = rows(grad_x, N, E);
    g.grad_weight1 = rows(grad_weight1, M, E), g.grad_weight2 = rows(grad_weight2, O, M);
    if (biases) g.grad_bias1 = row(grad_bias1), g.grad_bias2 = row(grad_bias2);
    if (norm) g.grad_norm = {row(grad_norm_weight), row(grad_norm_bias)};
    return g;
  }

  /// Largest relative error of all gradients; sums over rows are compared in units of sqrt(N).
  template <class Other>
  double gradient_error(const Other& other) const {
    double worst = relative_error(grad_x, other.grad_x);
    for (const auto& [ours, theirs] : {std::pair{&grad_weight1, &other.grad_weight1}, {&grad_weight2, &other.grad_weight2},
                                       {&grad_bias1, &other.grad_bias1}, {&grad_bias2, &other.grad_bias2},
                                       {&grad_norm_weight, &other.grad_norm_weight}, {&grad_norm_bias, &other.grad_norm_bias}})
      worst = std::max(worst, relative_error(*ours, *theirs));
    return worst;
  }
};

// Rows on and off the tile and the block, channels on and off the vector and the column block.
std::vector<RowsProblem<float>> all_problems() {
  std::vector<RowsProblem<float>> all;
  for (const auto& [n, e, m, o] : std::vector<std::array<int64_t, 4>>{{1, 1, 1, 1}, {2, 3, 5, 3}, {7, 16, 48, 16}, {8, 48, 192, 48}, {9, 17, 31, 17},
                                                                      {96, 24, 96, 24}, {97, 48, 144, 48}, {200, 50, 33, 7}, {63, 96, 384, 96}, {2500, 12, 20, 12},
                                                                      {40, 384, 700, 384}, {33, 49, 97, 49}})
    for (const int options : {0, 1, 2, 7}) {
      RowsProblem<float> p(n, e, m, o);
      p.norm = options & 1, p.biases = options & 2, p.residual = options & 4;
      all.push_back(p);
    }
  return all;
}

TEST(Linear, GradientsOfTheDefinitionMatchFiniteDifferences) {
  RowsProblem<double> p(5, 4, 3, 4);
  reference::linear_backward(p.linear_backward_params());
  const auto loss = [&] {
    reference::linear_forward(p.linear_params());
    double sum = 0;
    for (size_t i = 0; i < p.linear.size(); ++i) sum += p.linear[i] * p.grad_linear[i];
    return sum;
  };
  EXPECT_LT(worst_finite_difference(p.x, p.grad_x, loss), 1e-6);
  EXPECT_LT(worst_finite_difference(p.weight1, p.grad_weight1, loss), 1e-6);
  EXPECT_LT(worst_finite_difference(p.bias1, p.grad_bias1, loss), 1e-6);
  EXPECT_LT(worst_finite_difference(p.norm_weight, p.grad_norm_weight, loss), 1e-6);
  EXPECT_LT(worst_finite_difference(p.norm_bias, p.grad_norm_bias, loss), 1e-6);
}

TEST(Mlp, GradientsOfTheDefinitionMatchFiniteDifferences) {
  RowsProblem<double> p(5, 4, 6, 4);
  reference::mlp_backward(p.mlp_backward_params());
  const auto loss = [&] {
    reference::mlp_forward(p.mlp_params());
    double sum = 0;
    for (size_t i = 0; i < p.mlp.size(); ++i) sum += p.mlp[i] * p.grad_mlp[i];
    return sum;
  };
  for (const auto& [values, gradient] : {std::pair{&p.x, &p.grad_x}, {&p.weight1, &p.grad_weight1}, {&p.bias1, &p.grad_bias1}, {&p.weight2, &p.grad_weight2},
                                         {&p.bias2, &p.grad_bias2}, {&p.norm_weight, &p.grad_norm_weight}, {&p.norm_bias, &p.grad_norm_bias}})
    EXPECT_LT(worst_finite_difference(*values, *gradient, loss), 1e-6);
}

TEST(Mlp, GeluOfOneValueMatchesNumbersOfTheNormalDistribution) {
  // One hidden unit with weight 1 on both sides: the output is gelu(x).
  for (const auto& [h, expected] : {std::pair{1.0, 0.8413447460685429}, {-1.0, -0.15865525393145707}, {0.0, 0.0}, {3.0, 2.9959503059051097}, {-8.0, -4.976768e-15}}) {
    RowsProblem<double> p(1, 1, 1, 1);
    p.norm = p.biases = p.residual = false;
    p.x = {h}, p.weight1 = {1}, p.weight2 = {1};
    reference::mlp_forward(p.mlp_params());
    EXPECT_NEAR(p.mlp[0], expected, 1e-15);
  }
}

TEST(Linear, VectorCodeMatchesTheDefinitionOnAndOffTheTileForEveryTarget) {
  for (RowsProblem<float>& source : all_problems()) {
    auto expected = source.exact();
    reference::linear_forward(expected.linear_params());
    reference::linear_backward(expected.linear_backward_params());
    for (const Isa isa : testable_isas()) {
      auto p = source;
      cpu::linear_forward(p.linear_params(), serial_for, isa);
      EXPECT_LT(relative_error(p.linear, expected.linear), 2e-6) << p.N << ' ' << p.E << ' ' << p.M;
      cpu::linear_backward(p.linear_backward_params(), serial_for, isa);
      EXPECT_LT(p.gradient_error(expected), 5e-6) << p.N << ' ' << p.E << ' ' << p.M << " norm " << p.norm;
    }
  }
}

TEST(Mlp, VectorCodeMatchesTheDefinitionOnAndOffTheTileForEveryTarget) {
  for (RowsProblem<float>& source : all_problems()) {
    auto expected = source.exact();
    reference::mlp_forward(expected.mlp_params());
    reference::mlp_backward(expected.mlp_backward_params());
    for (const Isa isa : testable_isas()) {
      auto p = source;
      cpu::mlp_forward(p.mlp_params(), serial_for, isa);
      EXPECT_LT(relative_error(p.mlp, expected.mlp), 2e-6) << p.N << ' ' << p.E << ' ' << p.M << ' ' << p.O;
      cpu::mlp_backward(p.mlp_backward_params(), serial_for, isa);
      EXPECT_LT(p.gradient_error(expected), 5e-6) << p.N << ' ' << p.E << ' ' << p.M << ' ' << p.O << " norm " << p.norm;
    }
  }
}

TEST(Mlp, GeluIsRightFromTheFarLeftToTheFarRight) {
  // One hidden unit of weight 1: every row is one value of GELU and of its slope.
  RowsProblem<float> p(40001, 1, 1, 1);
  p.norm = p.biases = p.residual = false;
  p.weight1 = {1}, p.weight2 = {1};
  for (int64_t n = 0; n < p.N; ++n) p.x[n] = static_cast<float>((n - 20000) * 6e-4);
  p.grad_mlp.assign(p.N, 1);
  auto expected = p.exact();
  reference::mlp_forward(expected.mlp_params());
  reference::mlp_backward(expected.mlp_backward_params());
  for (const Isa isa : testable_isas()) {
    cpu::mlp_forward(p.mlp_params(), serial_for, isa);
    cpu::mlp_backward(p.mlp_backward_params(), serial_for, isa);
    for (int64_t n = 0; n < p.N; ++n) {
      ASSERT_NEAR(p.mlp[n], expected.mlp[n], 1.5e-7 * std::max(1.f, std::abs(p.x[n]))) << p.x[n];
      ASSERT_NEAR(p.grad_x[n], expected.grad_x[n], 3e-7) << p.x[n];
    }
  }
}

TEST(Mlp, InfiniteAndNotANumberHiddenValuesComeOutAsGeluDefinesThem) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const Isa isa : testable_isas()) {
    RowsProblem<float> p(4, 1, 1, 1);
    p.norm = p.biases = p.residual = false;
    p.weight1 = {1}, p.weight2 = {1};
    p.x = {infinity, -infinity, nan, 1e30f};
    p.grad_mlp = {1, 1, 1, 1};
    cpu::mlp_forward(p.mlp_params(), serial_for, isa);
    EXPECT_EQ(p.mlp[0], infinity);
    EXPECT_EQ(p.mlp[1], 0.f);
    EXPECT_TRUE(std::isnan(p.mlp[2]));
    EXPECT_EQ(p.mlp[3], 1e30f);
    cpu::mlp_backward(p.mlp_backward_params(), serial_for, isa);
    EXPECT_EQ(p.grad_x[0], 1.f);
    EXPECT_EQ(p.grad_x[1], 0.f);
    EXPECT_TRUE(std::isnan(p.grad_x[2]));
    EXPECT_EQ(p.grad_x[3], 1.f);
  }
}

TEST(Linear, AMeanAThousandDeviationsAwayCostsNoAccuracy) {
  RowsProblem<float> p(50, 48, 20, 48);
  for (float& v : p.x) v += 1000;
  auto expected = p.exact();
  reference::linear_forward(expected.linear_params());
  for (const Isa isa : testable_isas()) {
    cpu::linear_forward(p.linear_params(), serial_for, isa);
    // x itself is rounded to 6e-5 of a deviation, the same for both; the mean is rounded once more.
    EXPECT_LT(relative_error(p.linear, expected.linear), 1e-4);
  }
}

TEST(Linear, ManyThreadsGiveTheBitsOfOne) {
  RowsProblem<float> one(5000, 24, 50, 24);
  for (const Isa isa : testable_isas())
    for (const int count : rerun_threads()) {
      auto many = one;
      cpu::linear_forward(one.linear_params(), serial_for, isa);
      cpu::linear_forward(many.linear_params(), threads(count), isa);
      cpu::linear_backward(one.linear_backward_params(), serial_for, isa);
      cpu::linear_backward(many.linear_backward_params(), threads(count), isa);
      EXPECT_EQ(one.linear, many.linear);
      EXPECT_EQ(one.gradient_error(many), 0);
      cpu::mlp_forward(one.mlp_params(), serial_for, isa);
      cpu::mlp_forward(many.mlp_params(), threads(count), isa);
      cpu::mlp_backward(one.mlp_backward_params(), serial_for, isa);
      cpu::mlp_backward(many.mlp_backward_params(), threads(count), isa);
      EXPECT_EQ(one.mlp, many.mlp);
      EXPECT_EQ(one.gradient_error(many), 0);
    }
}

TEST(Linear, NoRowsGiveZeroGradientsOfTheWeights) {
  for (const Isa isa : testable_isas()) {
    RowsProblem<float> p(0, 5, 6, 5);
    cpu::linear_forward(p.linear_params(), serial_for, isa);
    cpu::linear_backward(p.linear_backward_params(), serial_for, isa);
    EXPECT_EQ(p.grad_weight1, std::vector<float>(30, 0.f));
    EXPECT_EQ(p.grad_norm_weight, std::vector<float>(5, 0.f));
    cpu::mlp_forward(p.mlp_params(), serial_for, isa);
    cpu::mlp_backward(p.mlp_backward_params(), serial_for, isa);
    EXPECT_EQ(p.grad_weight2, std::vector<float>(30, 0.f));
  }
}

TEST(Linear, NothingBesideTheTensorsIsReadOrWritten) {
  for (const Isa isa : testable_isas())
    for (const int64_t E : {5, 16, 47, 48})
      for (const auto guard : {GuardedMemory::Guard::kBefore, GuardedMemory::Guard::kAfter}) {
        RowsProblem<float> p(19, E, E + 3, E);
        auto expected = p;
        cpu::mlp_forward(expected.mlp_params(), serial_for, isa);
        cpu::mlp_backward(expected.mlp_backward_params(), serial_for, isa);
        const GuardedMemory x(p.x, guard), weight1(p.weight1, guard), bias1(p.bias1, guard), weight2(p.weight2, guard), bias2(p.bias2, guard);
        const GuardedMemory norm_weight(p.norm_weight, guard), norm_bias(p.norm_bias, guard), grad(p.grad_mlp, guard), added(p.added, guard), grad_linear(p.grad_linear, guard);
        BandedMemory out(p.mlp.size()), linear(p.linear.size()), grad_x(p.grad_x.size()), grad_weight1(p.grad_weight1.size()), grad_weight2(p.grad_weight2.size());
        auto g = p.mlp_backward_params();
        auto& f = g.forward;
        f.x.data = x.data(), f.weight1.data = weight1.data(), f.bias1.data = bias1.data(), f.weight2.data = weight2.data(), f.bias2.data = bias2.data();
        f.norm.weight.data = norm_weight.data(), f.norm.bias.data = norm_bias.data(), f.out.data = out.data();
        g.grad_out.data = grad.data(), g.grad_x.data = grad_x.data(), g.grad_weight1.data = grad_weight1.data(), g.grad_weight2.data = grad_weight2.data();
        cpu::mlp_forward(f, serial_for, isa);
        cpu::mlp_backward(g, serial_for, isa);
        EXPECT_EQ(out.values(), expected.mlp);
        EXPECT_EQ(grad_x.values(), expected.grad_x);
        for (const BandedMemory* m : {&out, &grad_x, &grad_weight1, &grad_weight2}) EXPECT_TRUE(m->intact());

        auto l = p.linear_backward_params();
        l.forward.x.data = x.data(), l.forward.weight.data = weight1.data(), l.forward.bias.data = bias1.data(), l.forward.residual.data = added.data();
        l.forward.norm = f.norm, l.forward.out.data = linear.data(), l.grad_out.data = grad_linear.data(), l.grad_x.data = grad_x.data(), l.grad_weight.data = grad_weight1.data();
        cpu::linear_forward(l.forward, serial_for, isa);
        cpu::linear_backward(l, serial_for, isa);
        for (const BandedMemory* m : {&linear, &grad_x, &grad_weight1}) EXPECT_TRUE(m->intact());
      }
}

TEST(Linear, GroupsOfChannelsGoToPlacesOfTheirOwn) {
  // 30 rows of 3 groups: group g of row n at 50 n + 17 g, as an up-convolution would have it.
  for (const Isa isa : testable_isas())
    for (const int64_t G : {1, 5, 16}) {
      RowsProblem<float> p(30, 20, 3 * G, 20);
      p.residual = false;
      cpu::linear_forward(p.linear_params(), serial_for, isa);
      std::vector<int64_t> rows(30), groups = {0, 17, 34};
      for (int64_t n = 0; n < 30; ++n) rows[n] = 50 * n;
      std::vector<float> out(30 * 50, 5.f), expected(30 * 50, 5.f);
      for (int64_t n = 0; n < 30; ++n)
        for (int64_t o = 0; o < 3 * G; ++o) expected[50 * n + 17 * (o / G) + o % G] = p.linear[n * 3 * G + o];
      auto scattered = p.linear_params();
      scattered.out.data = out.data();
      scattered.row_offset = View<const int64_t, 1>::contiguous(rows.data(), {30});
      scattered.group_offset = View<const int64_t, 1>::contiguous(groups.data(), {3});
      cpu::linear_forward(scattered, serial_for, isa);
      EXPECT_EQ(out, expected);
      std::fill(out.begin(), out.end(), 5.f);
      reference::linear_forward(scattered);
      EXPECT_LT(relative_error(out, expected), 2e-6);
    }
}

TEST(Linear, RowsMayLieApart) {
  // x, the residual and the output as slices of wider rows.
  for (const Isa isa : testable_isas()) {
    RowsProblem<float> p(30, 20, 20, 20);
    cpu::linear_forward(p.linear_params(), serial_for, isa);
    std::vector<float> wide(30 * 33, 5.f), out(30 * 29, 5.f);
    for (int64_t n = 0; n < 30; ++n) std::copy_n(p.x.data() + n * 20, 20, wide.data() + n * 33 + 4);
    auto apart = p.linear_params();
    apart.x.data = wide.data() + 4, apart.x.stride[0] = 33;
    apart.out.data = out.data() + 2, apart.out.stride[0] = 29;
    cpu::linear_forward(apart, serial_for, isa);
    for (int64_t n = 0; n < 30; ++n)
      for (int64_t j = 0; j < 29; ++j) ASSERT_EQ(out[n * 29 + j], j < 2 || j >= 22 ? 5.f : p.linear[n * 20 + j - 2]);
  }
}

}  // namespace
}  // namespace fovea::kernels
