#include <gtest/gtest.h>

#include "conv3d_problem.h"
#include "cpu_support.h"

namespace fovea::kernels {
namespace {

constexpr Conv3dForm kForms[] = {Conv3dForm::kDirect, Conv3dForm::kF222, Conv3dForm::kF244, Conv3dForm::kF444};

template <class A, class B>
double relative_l2(const std::vector<A>& a, const std::vector<B>& b) {
  double error = 0, size = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double difference = double(a[i]) - double(b[i]);
    error += difference * difference, size += double(b[i]) * double(b[i]);
  }
  return size == 0 ? error : std::sqrt(error / size);
}

// Volumes on and off the tile, channels on and off the vector and the column block.
const std::vector<Conv3dShape> kShapes = {
    {.B = 1, .grid = {4, 4, 4}, .in = 16, .out = 48},  {.B = 2, .grid = {5, 6, 7}, .in = 24, .out = 50},
    {.B = 1, .grid = {1, 1, 1}, .in = 3, .out = 5},    {.B = 3, .grid = {1, 2, 3}, .in = 17, .out = 1},
    {.B = 2, .grid = {13, 9, 12}, .in = 8, .out = 23}, {.B = 1, .grid = {3, 13, 11}, .in = 50, .out = 16},
    {.B = 1, .grid = {2, 1, 5}, .in = 1, .out = 47},   {.B = 1, .grid = {6, 9, 8}, .in = 48, .out = 97, .bias = false},
    {.B = 2, .grid = {3, 4, 2}, .in = 96, .out = 33},
};

std::string where(Isa isa, Conv3dForm form, const Conv3dShape& shape) {
  return name_of(isa) + " " + name_of(form) + " " + shape.text();
}

TEST(CpuConv3d, EveryFormMatchesTheDefinitionOnAndOffTileAndVector) {
  for (const auto& shape : kShapes) {
    Conv3dProblem<float> p(shape);
    Conv3dProblem<double> expected(p);
    reference::conv3d_forward(expected.params());
    reference::conv3d_backward(expected.backward_params());
    for (const Isa isa : testable_isas())
      for (const Conv3dForm form : kForms) {
        cpu::conv3d_forward(p.params(), form, serial_for, isa);
        EXPECT_LT(relative_l2(p.out, expected.out), 3e-6) << where(isa, form, shape);
        cpu::conv3d_backward(p.backward_params(), form, serial_for, isa);
        EXPECT_LT(relative_l2(p.grad_x, expected.grad_x), 3e-6) << where(isa, form, shape);
        EXPECT_LT(relative_l2(p.grad_weight, expected.grad_weight), 5e-6) << where(isa, form, shape);
        EXPECT_LT(relative_l2(p.grad_bias, expected.grad_bias), 1e-6) << where(isa, form, shape);
      }
  }
}

TEST(CpuConv3d, MomentsAreThoseOfTheOutputEvenWhereTheMeanIsAThousandDeviations) {
  for (const auto& shape : kShapes)
    for (const float offset : {0.0f, 1000.0f})
      for (const Isa isa : testable_isas())
        for (const Conv3dForm form : kForms) {
          Conv3dProblem<float> p(shape);
          for (float& b : p.bias) b += offset;
          cpu::conv3d_forward(p.params(), form, serial_for, isa);
          const int64_t V = product(shape.grid);
          for (int64_t b = 0; b < shape.B; ++b)
            for (int64_t o = 0; o < shape.out; ++o) {
              double mean = 0, squares = 0;
              for (int64_t v = 0; v < V; ++v) mean += p.out[(b * V + v) * shape.out + o] / double(V);
              for (int64_t v = 0; v < V; ++v) squares += std::pow(p.out[(b * V + v) * shape.out + o] - mean, 2);
              const double deviation = std::sqrt(squares / double(V)), *moments = &p.moments[(b * shape.out + o) * 2];
              ASSERT_NEAR(moments[0], mean, 1e-6 * std::max(deviation, 1e-3)) << where(isa, form, shape);
              ASSERT_NEAR(moments[1], squares, 1e-5 * squares + 1e-9) << where(isa, form, shape);
            }
        }
}

TEST(CpuConv3d, TransformedWeightsMayBeKept) {
  Conv3dProblem<float> once({.grid = {5, 4, 6}, .in = 20, .out = 70}), kept = once;
  for (const Isa isa : testable_isas())
    for (const Conv3dForm form : kForms) {
      cpu::conv3d_forward(once.params(), form, serial_for, isa);
      const auto weights = cpu::transform_conv3d_weights(kept.params().weight, form, serial_for, isa);
      cpu::conv3d_forward(kept.params(), form, serial_for, isa, &weights);
      EXPECT_EQ(once.out, kept.out) << where(isa, form, once.shape);
    }
}

TEST(CpuConv3d, AnyNumberOfThreadsGivesTheSameBits) {
  for (const Conv3dForm form : kForms) {
    Conv3dProblem<float> one({.B = 2, .grid = {14, 9, 13}, .in = 19, .out = 20});
    cpu::conv3d_forward(one.params(), form, serial_for);
    cpu::conv3d_backward(one.backward_params(), form, serial_for);
    for (const int count : rerun_threads()) {
      Conv3dProblem<float> many(one.shape);
      cpu::conv3d_forward(many.params(), form, threads(count));
      cpu::conv3d_backward(many.backward_params(), form, threads(count));
      EXPECT_EQ(one.out, many.out) << name_of(form);
      EXPECT_EQ(one.moments, many.moments) << name_of(form);
      EXPECT_EQ(one.grad_x, many.grad_x) << name_of(form);
      EXPECT_EQ(one.grad_weight, many.grad_weight) << name_of(form);
    }
  }
}

TEST(CpuConv3d, ChannelsOfAWiderTensorAndWeightsOfAnyStridesAreReadAndWrittenInPlace) {
  const Conv3dShape shape{.B = 2, .grid = {5, 3, 6}, .in = 20, .out = 33};
  const Conv3dProblem<float> source(shape);
  const int64_t voxels = shape.B * product(shape.grid), wide_in = 31, wide_out = 40;
  for (const Isa isa : testable_isas())
    for (const Conv3dForm form : kForms) {
      auto expected = source, p = source;
      cpu::conv3d_forward(expected.params(), form, serial_for, isa);
      cpu::conv3d_backward(expected.backward_params(), form, serial_for, isa);
      std::vector<float> x(voxels * wide_in, std::numeric_limits<float>::quiet_NaN()), out(voxels * wide_out, 7.0f),
          grad_x = x;
      std::vector<float> weight(p.weight.size()), grad_weight(p.weight.size());
      for (int64_t v = 0; v < voxels; ++v) std::copy_n(&p.x[v * shape.in], shape.in, &x[v * wide_in + 5]);
      auto g = p.backward_params();
      const auto slice = [&](float* data, int64_t channels, int64_t wide, int64_t first) {
        auto view = View<float, 5>::contiguous(data, p.volume(wide));
        view.data += first, view.shape[4] = channels;
        return view;
      };
      // torch's [Co,Ci,3,3,3]
      const std::array<int64_t, 5> strides = {27 * shape.in, 9, 3, 1, 27};
      const View<float, 5> torch_weight{weight.data(), g.forward.weight.shape, strides};
      for (int64_t o = 0; o < shape.out; ++o)
        for (int64_t t = 0; t < 27; ++t)
          for (int64_t c = 0; c < shape.in; ++c)
            torch_weight(o, t / 9, t / 3 % 3, t % 3, c) = g.forward.weight(o, t / 9, t / 3 % 3, t % 3, c);
      g.forward.weight = torch_weight;
      g.grad_weight = {grad_weight.data(), torch_weight.shape, strides};
      g.forward.x = slice(x.data(), shape.in, wide_in, 5);
      g.forward.out = slice(out.data(), shape.out, wide_out, 3);
      g.grad_x = slice(grad_x.data(), shape.in, wide_in, 5);
      cpu::conv3d_forward(g.forward, form, serial_for, isa);
      cpu::conv3d_backward(g, form, serial_for, isa);
      for (int64_t v = 0; v < voxels; ++v) {
        for (int64_t o = 0; o < wide_out; ++o)
          ASSERT_EQ(out[v * wide_out + o], o >= 3 && o < 3 + shape.out ? expected.out[v * shape.out + o - 3] : 7.0f)
              << where(isa, form, shape);
        for (int64_t c = 0; c < wide_in; ++c) {
          const float value = grad_x[v * wide_in + c];
          if (c >= 5 && c < 5 + shape.in) {
            ASSERT_EQ(value, expected.grad_x[v * shape.in + c - 5]) << where(isa, form, shape);
          } else {
            ASSERT_TRUE(std::isnan(value));
          }
        }
      }
      for (int64_t o = 0; o < shape.out; ++o)
        for (int64_t t = 0; t < 27; ++t)
          for (int64_t c = 0; c < shape.in; ++c)
            ASSERT_EQ(grad_weight[(o * shape.in + c) * 27 + t], expected.grad_weight[(o * 27 + t) * shape.in + c]);
    }
}

TEST(CpuConv3d, NaNInfinityAndOverflowComeOutWhereTheDefinitionHasThem) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const float bad : {nan, inf, -inf, 2e38f})
    for (const Isa isa : testable_isas())
      for (const Conv3dForm form : kForms) {
        Conv3dProblem<float> p({.B = 2, .grid = {7, 9, 6}, .in = 18, .out = 20});
        for (float& w : p.weight) w = std::abs(w) < 0.1f ? 0 : w / 3;
        for (const int64_t voxel : {0, 100, 377, 378 + 200}) p.x[voxel * 18 + voxel % 18] = bad;
        Conv3dProblem<double> expected(p);
        reference::conv3d_forward(expected.params());
        cpu::conv3d_forward(p.params(), form, serial_for, isa);
        for (size_t i = 0; i < p.out.size(); ++i) {
          const double e = expected.out[i];
          const auto context = [&] {
            return where(isa, form, p.shape) + " " + std::to_string(bad) + " at " + std::to_string(i);
          };
          // A huge value costs its neighbours in the tile their accuracy, as far as it is finite.
          const double bound = 1e-5 * (std::isfinite(bad) ? bad : 10);
          if (std::isnan(e)) {
            ASSERT_TRUE(std::isnan(p.out[i])) << context();
          } else if (std::abs(e) > std::numeric_limits<float>::max()) {
            ASSERT_EQ(p.out[i], e > 0 ? inf : -inf) << context();
          } else {
            ASSERT_NEAR(p.out[i], e, bound) << context();
          }
        }
      }
}

TEST(CpuConv3d, NonFiniteWeightsReachEveryOutputTheyMultiply) {
  Conv3dProblem<float> p({.grid = {5, 4, 4}, .in = 16, .out = 17});
  p.weight[(3 * 27 + 0) * 16] = std::numeric_limits<float>::infinity();  // first tap of output 3: not used at z = 0
  Conv3dProblem<double> expected(p);
  reference::conv3d_forward(expected.params());
  for (const Conv3dForm form : kForms) {
    cpu::conv3d_forward(p.params(), form, serial_for);
    for (size_t i = 0; i < p.out.size(); ++i)
      ASSERT_EQ(std::isfinite(p.out[i]), std::isfinite(expected.out[i])) << name_of(form);
  }
}

TEST(CpuConv3d, GradientOfWeightsIsNotFiniteWhereTheDefinitionsIsNot) {
  Conv3dProblem<float> p({.grid = {5, 6, 4}, .in = 8, .out = 9});
  p.x[(3 * 24 + 2 * 4 + 1) * 8 + 5] = std::numeric_limits<float>::quiet_NaN();
  Conv3dProblem<double> expected(p);
  reference::conv3d_backward(expected.backward_params());
  for (const Conv3dForm form : kForms) {
    cpu::conv3d_backward(p.backward_params(), form, serial_for);
    for (size_t i = 0; i < p.grad_weight.size(); ++i) {
      if (!std::isfinite(expected.grad_weight[i])) {
        ASSERT_FALSE(std::isfinite(p.grad_weight[i])) << name_of(form);
      }
      ASSERT_TRUE(i % 8 == 5 || std::isfinite(p.grad_weight[i])) << name_of(form);
    }
  }
}

TEST(CpuConv3d, NothingBesideTheTensorsIsReadOrWritten) {
  for (const auto& shape : kShapes)
    for (const auto guard : {GuardedMemory::Guard::kBefore, GuardedMemory::Guard::kAfter})
      for (const Isa isa : testable_isas())
        for (const Conv3dForm form : kForms) {
          Conv3dProblem<float> p(shape);
          const GuardedMemory x(p.x, guard), weight(p.weight, guard), bias(p.bias, guard), grad_out(p.grad_out, guard);
          BandedMemory out(p.out.size()), grad_x(p.grad_x.size()), grad_weight(p.grad_weight.size()),
              grad_bias(p.grad_bias.size());
          auto g = p.backward_params();
          g.forward.x.data = x.data(), g.forward.weight.data = weight.data(), g.grad_out.data = grad_out.data();
          if (shape.bias) g.forward.bias.data = bias.data();
          g.forward.out.data = out.data(), g.grad_x.data = grad_x.data(), g.grad_weight.data = grad_weight.data(),
          g.grad_bias.data = grad_bias.data();
          cpu::conv3d_forward(g.forward, form, serial_for, isa);
          cpu::conv3d_backward(g, form, serial_for, isa);
          EXPECT_TRUE(out.intact() && grad_x.intact() && grad_weight.intact() && grad_bias.intact())
              << where(isa, form, shape);
        }
}

TEST(CpuConv3d, AnEmptyBatchGivesNoOutputAndZeroGradientOfWeights) {
  Conv3dProblem<float> p({.B = 0, .grid = {3, 3, 3}, .in = 16, .out = 16});
  for (const Conv3dForm form : kForms) {
    std::fill(p.grad_weight.begin(), p.grad_weight.end(), 1.0f);
    std::fill(p.grad_bias.begin(), p.grad_bias.end(), 1.0f);
    cpu::conv3d_forward(p.params(), form, serial_for);
    cpu::conv3d_backward(p.backward_params(), form, serial_for);
    EXPECT_EQ(p.grad_weight, std::vector<float>(p.grad_weight.size(), 0.0f));
    EXPECT_EQ(p.grad_bias, std::vector<float>(p.grad_bias.size(), 0.0f));
  }
}

TEST(CpuConv3d, LargeVolumesAreWrittenPastTheCachesWithTheSameResult) {
  // 13 MB of output: streamed where lines are whole; a channel more and they are not.
  for (const int64_t out : {16, 17}) {
    Conv3dProblem<float> p({.grid = {58, 60, 60}, .in = 1, .out = out});
    for (const Isa isa : testable_isas()) {
      Conv3dProblem<float> direct = p;
      cpu::conv3d_forward(direct.params(), Conv3dForm::kDirect, serial_for, isa);
      for (const Conv3dForm form : kForms) {
        cpu::conv3d_forward(p.params(), form, threads(2), isa);
        EXPECT_LT(relative_l2(p.out, direct.out), 3e-6) << where(isa, form, p.shape);
      }
    }
  }
}

}  // namespace
}  // namespace fovea::kernels
