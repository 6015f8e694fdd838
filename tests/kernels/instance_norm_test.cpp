#include "fovea/kernels/instance_norm.h"

#include <gtest/gtest.h>

#include <thread>

#include "conv3d_problem.h"
#include "problems.h"

namespace fovea::kernels {
namespace {

template <class T>
struct NormProblem {
  int64_t B, V, C;
  std::vector<T> x, weight, bias, residual, out, mean, rstd, grad_out, grad_x, grad_residual, grad_weight, grad_bias;
  double slope = 0.01;
  bool affine = true, with_residual = true;

  NormProblem(int64_t b, int64_t v, int64_t c, double offset = 0) : B(b), V(v), C(c) {
    Rng rng(7, 0, 0);
    const size_t n = static_cast<size_t>(b * v * c);
    for (auto* values : {&x, &residual, &grad_out}) values->resize(n), fill_normal(*values, rng);
    for (auto& value : x) value += static_cast<T>(offset);
    for (auto* values : {&weight, &bias}) values->resize(c), fill_normal(*values, rng);
    out.resize(n), grad_x.resize(n), grad_residual.resize(n), grad_weight.resize(c), grad_bias.resize(c), mean.resize(b * c), rstd.resize(b * c);
  }

  template <class U>
  static NormProblem from(const NormProblem<U>& other) {
    NormProblem p(other.B, other.V, other.C);
    p.x = converted<T>(other.x), p.weight = converted<T>(other.weight), p.bias = converted<T>(other.bias);
    p.residual = converted<T>(other.residual), p.grad_out = converted<T>(other.grad_out);
    p.slope = other.slope, p.affine = other.affine, p.with_residual = other.with_residual;
    return p;
  }

  InstanceNormParams<T> params() {
    InstanceNormParams<T> p;
    p.x = View<const T, 3>::contiguous(x.data(), {B, V, C});
    if (affine) p.weight = View<const T, 1>::contiguous(weight.data(), {C}), p.bias = View<const T, 1>::contiguous(bias.data(), {C});
    if (with_residual) p.residual = View<const T, 3>::contiguous(residual.data(), {B, V, C});
    p.slope = slope;
    p.out = View<T, 3>::contiguous(out.data(), {B, V, C});
    p.mean = View<T, 2>::contiguous(mean.data(), {B, C});
    p.rstd = View<T, 2>::contiguous(rstd.data(), {B, C});
    return p;
  }

  InstanceNormBackwardParams<T> backward_params() {
    InstanceNormBackwardParams<T> g;
    g.forward = params();
    g.grad_out = View<const T, 3>::contiguous(grad_out.data(), {B, V, C});
    g.grad_x = View<T, 3>::contiguous(grad_x.data(), {B, V, C});
    if (with_residual) g.grad_residual = View<T, 3>::contiguous(grad_residual.data(), {B, V, C});
    if (affine) g.grad_weight = View<T, 1>::contiguous(grad_weight.data(), {C}), g.grad_bias = View<T, 1>::contiguous(grad_bias.data(), {C});
    return g;
  }
};

void two_threads(int64_t n, int64_t, const ParallelBody& body) {
  std::thread other([&] { body(n / 2, n); });
  body(0, n / 2);
  other.join();
}

TEST(InstanceNorm, FourValuesMatchNumbersWorkedByHand) {
  // 0, 2, 4, 6: mean 3, variance 5; with epsilon 0 the first is -3 / sqrt 5, leaking 0.1 of it.
  NormProblem<double> p(1, 4, 1);
  p.x = {0, 2, 4, 6}, p.slope = 0.1, p.affine = p.with_residual = false;
  auto params = p.params();
  params.epsilon = 0;
  reference::instance_norm_forward(params);
  EXPECT_NEAR(p.out[0], -0.3 / std::sqrt(5.0), 1e-15);
  EXPECT_NEAR(p.out[3], 3 / std::sqrt(5.0), 1e-15);
  EXPECT_NEAR(p.mean[0], 3, 1e-15);
}

TEST(InstanceNorm, GradientsMatchFiniteDifferencesOnEveryInput) {
  NormProblem<double> p(2, 5, 3);
  p.slope = 0.2;
  reference::instance_norm_forward(p.params());
  reference::instance_norm_backward(p.backward_params());
  const auto loss = [&] {
    reference::instance_norm_forward(p.params());
    double sum = 0;
    for (size_t i = 0; i < p.out.size(); ++i) sum += p.out[i] * p.grad_out[i];
    return sum;
  };
  EXPECT_LT(worst_finite_difference(p.x, p.grad_x, loss), 1e-6);
  EXPECT_LT(worst_finite_difference(p.residual, p.grad_residual, loss), 1e-6);
  EXPECT_LT(worst_finite_difference(p.weight, p.grad_weight, loss), 1e-6);
  EXPECT_LT(worst_finite_difference(p.bias, p.grad_bias, loss), 1e-6);
}

TEST(InstanceNorm, VectorCodeMatchesTheDefinitionOnAndOffThePeriodForEveryTarget) {
  for (const int64_t C : {1, 3, 12, 16, 17, 48, 100}) {
    for (const int64_t V : {2, 15, 16, 17, 700, 2049}) {
      for (const bool full : {true, false}) {
        NormProblem<float> source(2, V, C);
        source.affine = source.with_residual = full;
        auto expected = NormProblem<double>::from(source);
        reference::instance_norm_forward(expected.params());
        reference::instance_norm_backward(expected.backward_params());
        for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
          if (isa > best_isa()) continue;
          auto p = source;
          cpu::instance_norm_forward(p.params(), serial_for, isa);
          EXPECT_LT(relative_error(p.out, expected.out), 2e-6) << "C " << C << " V " << V;
          p.out = converted<float>(expected.out);  // the same side of the leaky ReLU's corner
          cpu::instance_norm_backward(p.backward_params(), serial_for, isa);
          // grad_x is rstd times terms that cancel: two voxels that lie close together have a large rstd.
          const double largest_rstd = *std::max_element(expected.rstd.begin(), expected.rstd.end());
          EXPECT_LT(relative_error(p.grad_x, expected.grad_x), 2e-6 * std::max(1.0, largest_rstd)) << "C " << C << " V " << V;
          if (!full) continue;
          EXPECT_LT(relative_error(p.grad_residual, expected.grad_residual), 1e-6);
          EXPECT_LT(relative_error(p.grad_weight, expected.grad_weight), 5e-6) << "C " << C << " V " << V;
          EXPECT_LT(relative_error(p.grad_bias, expected.grad_bias), 5e-6) << "C " << C << " V " << V;
        }
      }
    }
  }
}

TEST(InstanceNorm, ResultsTooLargeForTheCacheMatchTheDefinitionToo) {
  NormProblem<float> source(1, 350000, 12);  // 4.2 million values
  auto expected = NormProblem<double>::from(source);
  reference::instance_norm_forward(expected.params());
  reference::instance_norm_backward(expected.backward_params());
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (isa > best_isa()) continue;
    for (const int64_t shift : {0, 1}) {  // on and off the cache line, where stores may and may not go past the cache
      auto p = source;
      std::vector<float> out(p.out.size() + 32), grad_x(out.size());
      const auto at = [&](std::vector<float>& v) {
        return v.data() + (16 - reinterpret_cast<uintptr_t>(v.data()) / 4 % 16) % 16 + shift;
      };
      auto params = p.params();
      params.out.data = at(out);
      cpu::instance_norm_forward(params, two_threads, isa);
      std::copy_n(at(out), p.out.size(), p.out.begin());
      EXPECT_LT(relative_error(p.out, expected.out), 2e-6);
      p.out = converted<float>(expected.out);
      auto backward = p.backward_params();
      backward.grad_x.data = at(grad_x);
      cpu::instance_norm_backward(backward, two_threads, isa);
      std::copy_n(at(grad_x), p.grad_x.size(), p.grad_x.begin());
      EXPECT_LT(relative_error(p.grad_x, expected.grad_x), 2e-6);
    }
  }
}

TEST(InstanceNorm, GradientsFromTheResultAloneMatchThoseFromTheInput) {
  for (const int64_t C : {3, 16, 48})
    for (const bool with_residual : {false, true}) {
      NormProblem<float> source(2, 777, C, /*offset=*/3);
      source.affine = false, source.with_residual = with_residual;
      auto expected = NormProblem<double>::from(source);
      reference::instance_norm_forward(expected.params());
      reference::instance_norm_backward(expected.backward_params());
      const std::vector<double> grad_x = expected.grad_x;
      auto from_result = expected.backward_params();
      from_result.forward.x.data = nullptr;
      reference::instance_norm_backward(from_result);
      EXPECT_LT(relative_error(expected.grad_x, grad_x), 1e-12);
      for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
        if (isa > best_isa()) continue;
        auto p = source;
        cpu::instance_norm_forward(p.params(), serial_for, isa);
        p.out = converted<float>(expected.out);
        auto backward = p.backward_params();
        backward.forward.x.data = nullptr;
        cpu::instance_norm_backward(backward, serial_for, isa);
        EXPECT_LT(relative_error(p.grad_x, grad_x), 2e-6) << "C " << C;
        if (with_residual) {
          EXPECT_LT(relative_error(p.grad_residual, expected.grad_residual), 1e-6);
        }
      }
    }
}

TEST(InstanceNorm, AMeanAThousandDeviationsAwayCostsNoAccuracy) {
  NormProblem<float> p(1, 4096, 12, /*offset=*/1000);
  p.affine = p.with_residual = false;
  auto expected = NormProblem<double>::from(p);
  reference::instance_norm_forward(expected.params());
  cpu::instance_norm_forward(p.params(), serial_for);
  EXPECT_LT(relative_error(p.out, expected.out), 2e-6);
}

TEST(InstanceNorm, MomentsThatAConvolutionTookGiveTheSameResultAsItsOwn) {
  NormProblem<float> p(2, 60, 20);
  Conv3dProblem<float> conv({.B = 2, .grid = {5, 4, 3}, .in = 9, .out = 20});
  cpu::conv3d_forward(conv.params(), Conv3dForm::kF222, serial_for);
  p.x = conv.out;
  auto expected = NormProblem<double>::from(p);
  reference::instance_norm_forward(expected.params());
  auto params = p.params();
  params.moments = conv.params().moments;
  for (const Isa isa : {Isa::kBaseline, best_isa()}) {
    cpu::instance_norm_forward(params, serial_for, isa);
    EXPECT_LT(relative_error(p.out, expected.out), 2e-6);
    EXPECT_LT(relative_error(p.rstd, expected.rstd), 2e-6);
  }
}

TEST(InstanceNorm, AConstantChannelGivesZeroNotNaN) {
  NormProblem<float> p(1, 33, 4);
  std::fill(p.x.begin(), p.x.end(), 5.0f);
  p.affine = p.with_residual = false;
  cpu::instance_norm_forward(p.params(), serial_for);
  cpu::instance_norm_backward(p.backward_params(), serial_for);
  for (const float y : p.out) EXPECT_EQ(y, 0.0f);
  for (const float g : p.grad_x) EXPECT_TRUE(std::isfinite(g));
}

TEST(InstanceNorm, TwoThreadsGiveTheBitsOfOne) {
  NormProblem<float> one(3, 5000, 12);
  auto two = one;
  cpu::instance_norm_forward(one.params(), serial_for);
  cpu::instance_norm_forward(two.params(), two_threads);
  EXPECT_EQ(one.out, two.out);
  cpu::instance_norm_backward(one.backward_params(), serial_for);
  cpu::instance_norm_backward(two.backward_params(), two_threads);
  EXPECT_EQ(one.grad_x, two.grad_x);
  EXPECT_EQ(one.grad_weight, two.grad_weight);
}

}  // namespace
}  // namespace fovea::kernels
