#include "fovea/ops/conv3d.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "fovea/ops/instance_norm_act.h"
#include "message_of.h"

namespace fovea::ops {
namespace {

/// Puts torch's precision of float32 products back.
class Precision {
 public:
  explicit Precision(const std::string& name) { at::globalContext().setFloat32MatmulPrecision(name); }
  ~Precision() { at::globalContext().setFloat32MatmulPrecision("highest"); }
};

double relative_l2(const torch::Tensor& a, const torch::Tensor& b) {
  const auto exact = b.to(torch::kDouble);
  return ((a.to(torch::kDouble) - exact).norm() / exact.norm().clamp_min(1e-30)).item<double>();
}

// Output and gradients of x, weight and bias, in double, by torch.
std::vector<torch::Tensor> exact(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias,
                                 const torch::Tensor& grad) {
  std::vector<torch::Tensor> leaves;
  for (const auto& t : {x, weight, bias}) leaves.push_back(t.detach().to(torch::kDouble).requires_grad_());
  const std::vector<int64_t> padding = {weight.size(2) / 2, weight.size(3) / 2, weight.size(4) / 2};
  auto all = std::vector{torch::conv3d(leaves[0], leaves[1], leaves[2], 1, padding)};
  for (auto& g : torch::autograd::grad({all[0]}, leaves, {grad.to(torch::kDouble)})) all.push_back(g);
  return all;
}

std::vector<torch::Tensor> ours(torch::Tensor x, torch::Tensor weight, torch::Tensor bias, const torch::Tensor& grad) {
  for (auto* t : {&x, &weight, &bias}) *t = t->detach().requires_grad_();
  auto all = std::vector{ops::conv3d(x, weight, bias)};
  for (auto& g : torch::autograd::grad({all[0]}, {x, weight, bias}, {grad})) all.push_back(g);
  return all;
}

TEST(Conv3d, OutputAndEveryGradientEqualTorchsInDoubleForAnyKernelSizeLayoutAndPrecision) {
  torch::manual_seed(0);
  struct Case {
    std::vector<int64_t> x, weight;
  };
  const std::vector<Case> cases = {{{2, 24, 9, 10, 12}, {50, 24, 3, 3, 3}}, {{1, 64, 8, 8, 8}, {48, 64, 3, 3, 3}},
                                   {{1, 2, 5, 4, 6}, {16, 2, 3, 3, 3}},     {{1, 16, 1, 2, 1}, {16, 16, 3, 3, 3}},
                                   {{2, 6, 4, 5, 3}, {7, 6, 1, 1, 1}},      {{1, 5, 6, 7, 6}, {4, 5, 1, 3, 5}}};
  for (const char* precision : {"highest", "high"}) {
    const Precision set(precision);
    for (const auto& c : cases)
      for (const bool channels_last : {false, true}) {
        auto x = torch::randn(c.x), weight = torch::randn(c.weight);
        if (channels_last) x = x.contiguous(at::MemoryFormat::ChannelsLast3d);
        auto size = c.x;
        size[1] = c.weight[0];
        const auto bias = torch::randn({c.weight[0]}), grad = torch::randn(size);
        const auto expected = exact(x, weight, bias, grad), found = ours(x, weight, bias, grad);
        for (size_t i = 0; i < found.size(); ++i) {
          EXPECT_EQ(found[i].sizes(), expected[i].sizes());
          EXPECT_LT(relative_l2(found[i], expected[i]), 1e-5) << i << " of " << x.sizes() << weight.sizes();
        }
        EXPECT_TRUE(found[0].is_contiguous(at::MemoryFormat::ChannelsLast3d));
      }
  }
}

TEST(Conv3d, TheWeightsGradientOfFewChannelsIsTorchsAndHasTheSameBitsForAnyNumberOfThreads) {
  at::manual_seed(4);
  const int before = at::get_num_threads();
  struct Case {
    std::vector<int64_t> x, weight;
  };
  for (const Case& c : {Case{{2, 1, 9, 33, 31}, {12, 1, 3, 3, 3}}, Case{{1, 4, 6, 17, 20}, {48, 4, 3, 3, 3}}, Case{{1, 2, 16, 24, 24}, {5, 2, 1, 5, 3}}, Case{{3, 8, 2, 7, 5}, {6, 8, 5, 3, 1}}}) {
    const auto x = torch::randn(c.x), weight = torch::randn(c.weight).requires_grad_();
    auto shape = c.x;
    shape[1] = c.weight[0];
    const auto upstream = torch::randn(shape);
    const auto gradient = [&] { return torch::autograd::grad({ops::conv3d(x, weight)}, {weight}, {upstream})[0]; };
    const auto torchs = [&](at::ScalarType dtype) {
      const auto w = weight.detach().to(dtype).requires_grad_();
      return torch::autograd::grad({torch::conv3d(x.to(dtype), w, {}, 1, {c.weight[2] / 2, c.weight[3] / 2, c.weight[4] / 2})}, {w}, {upstream.to(dtype)})[0];
    };
    const auto expected = torchs(torch::kDouble);
    at::set_num_threads(1);
    const auto one = gradient();
    EXPECT_LE(relative_l2(one, expected), 2 * relative_l2(torchs(torch::kFloat), expected) + 1e-7);
    for (const int threads : {2, 3, 5}) {
      at::set_num_threads(threads);
      EXPECT_TRUE(torch::equal(gradient(), one)) << threads << " threads, " << torch::IntArrayRef(c.x);
    }
    at::set_num_threads(before);
  }
}

TEST(Conv3d, HighestPrecisionErrsNoMoreThanTwiceAsMuchAsTorch) {
  const auto x = torch::randn({1, 48, 24, 24, 24}), weight = torch::randn({48, 48, 3, 3, 3});
  const auto expected = torch::conv3d(x.to(torch::kDouble), weight.to(torch::kDouble), {}, 1, 1);
  EXPECT_LT(relative_l2(ops::conv3d(x, weight), expected),
            2 * relative_l2(torch::conv3d(x, weight, {}, 1, 1), expected));
}

TEST(Conv3d, TheFormFollowsSizeAndPrecision) {
  const auto x = torch::empty({1, 48, 48, 48, 48}), weight = torch::empty({48, 48, 3, 3, 3});
  const auto few = torch::empty({1, 1, 48, 48, 48}), few_weight = torch::empty({48, 1, 3, 3, 3});
  EXPECT_EQ(conv3d_form(x, weight), "F(2,2,2)");
  const Precision high("high");
  EXPECT_EQ(conv3d_form(x, weight), "F(4,4,4)");
  EXPECT_EQ(conv3d_form(few, few_weight), "direct");
  EXPECT_EQ(conv3d_form(x, torch::empty({48, 48, 1, 1, 1})), "direct");
}

TEST(Conv3d, ChannelsOfAWiderTensorAreReadInPlace) {
  const Precision high("high");
  const auto wide = torch::randn({2, 60, 12, 12, 12}).contiguous(at::MemoryFormat::ChannelsLast3d);
  const auto weight = torch::randn({48, 32, 3, 3, 3}), slice = wide.slice(1, 20, 52);
  EXPECT_TRUE(torch::equal(ops::conv3d(slice, weight), ops::conv3d(slice.contiguous(), weight)));
}

TEST(KeptConv3dWeights, GiveTheSameBitsAndFollowEveryChangeOfTheWeights) {
  const Precision high("high");
  const torch::NoGradGuard no_grad;
  KeptConv3dWeights kept;
  const auto x = torch::randn({1, 48, 12, 12, 12});
  auto weight = torch::randn({48, 48, 3, 3, 3});
  ASSERT_NE(conv3d_form(x, weight), "direct");
  const auto same = [&] { return torch::equal(kept.conv3d(x, weight), ops::conv3d(x, weight)); };
  EXPECT_TRUE(same());
  EXPECT_TRUE(same());
  weight.mul_(2);
  EXPECT_TRUE(same());
  weight = torch::randn({48, 48, 3, 3, 3});
  EXPECT_TRUE(same());
  at::globalContext().setFloat32MatmulPrecision("highest");
  EXPECT_TRUE(same());
}

TEST(KeptConv3dWeights, AreNotKeptOfAWeightThatTrainsSinceOptimisersMayWriteUnseen) {
  const Precision high("high");
  KeptConv3dWeights kept;
  const auto x = torch::randn({1, 48, 12, 12, 12});
  const auto weight = torch::randn({48, 48, 3, 3, 3}).requires_grad_();
  ASSERT_NE(conv3d_form(x, weight), "direct");
  const torch::NoGradGuard no_grad;
  kept.conv3d(x, weight);
  float* values = weight.data_ptr<float>();
  for (int64_t i = 0; i < weight.numel(); ++i) values[i] *= 2;  // no version is counted
  EXPECT_TRUE(torch::equal(kept.conv3d(x, weight), ops::conv3d(x, weight)));
}

TEST(KeptConv3dWeights, AreNotUsedWhereAGradientIsRecorded) {
  KeptConv3dWeights kept;
  const auto x = torch::randn({1, 48, 8, 8, 8}), weight = torch::randn({48, 48, 3, 3, 3}).requires_grad_();
  kept.conv3d(x, weight).sum().backward();
  EXPECT_GT(weight.grad().abs().max().item<float>(), 0);
}

TEST(Conv3d, Bfloat16IsComputedInFloatAndRoundedOnce) {
  const auto x = torch::randn({1, 32, 8, 8, 8}).to(torch::kBFloat16),
             weight = torch::randn({32, 32, 3, 3, 3}).to(torch::kBFloat16);
  const auto out = ops::conv3d(x, weight);
  EXPECT_EQ(out.scalar_type(), torch::kBFloat16);
  EXPECT_LT(relative_l2(out, torch::conv3d(x.to(torch::kDouble), weight.to(torch::kDouble), {}, 1, 1)), 3e-3);
}

TEST(Conv3d, NaNInTheInputStaysWithinOneVoxelAndReachesTheWeightsItMultiplies) {
  const Precision high("high");
  auto x = torch::randn({1, 32, 9, 9, 9}), grad = torch::randn({1, 32, 9, 9, 9}),
       weight = torch::randn({32, 32, 3, 3, 3});
  x[0][3][0][4][5] = std::numeric_limits<float>::quiet_NaN();
  const auto bias = torch::zeros({32});
  const auto expected = exact(x, weight, bias, grad), found = ours(x, weight, bias, grad);
  for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(torch::equal(found[i].isnan(), expected[i].isnan())) << i;
}

TEST(Conv3d, AnEmptyBatchGivesAnEmptyResultAndZeroGradients) {
  auto weight = torch::randn({16, 16, 3, 3, 3}).requires_grad_();
  const auto out = ops::conv3d(torch::empty({0, 16, 4, 4, 4}), weight);
  EXPECT_EQ(out.sizes(), (std::vector<int64_t>{0, 16, 4, 4, 4}));
  out.sum().backward();
  EXPECT_TRUE(torch::equal(weight.grad(), torch::zeros_like(weight)));
}

TEST(Conv3d, RefusalsNameTheArgument) {
  const auto x = torch::randn({1, 3, 4, 4, 4}), weight = torch::randn({5, 3, 3, 3, 3});
  const auto message = [](auto f) { return message_of(f); };
  using ::testing::HasSubstr;
  EXPECT_THAT(message([&] { ops::conv3d(x[0], weight); }), HasSubstr("conv3d: x has"));
  EXPECT_THAT(message([&] {
                ops::conv3d(x, torch::ones({5, 2, 3, 3, 3}));
              }),
              HasSubstr("weight has 2 input channels, expected 3 (the channels of x)"));
  EXPECT_THAT(message([&] {
                ops::conv3d(x, torch::ones({5, 3, 3, 2, 3}));
              }),
              HasSubstr("weight has kernel edge 2, expected an odd number"));
  EXPECT_THAT(message([&] { ops::conv3d(x, weight, torch::ones({4})); }), HasSubstr("bias has 4 channels, expected 5"));
  EXPECT_THAT(message([&] { ops::conv3d(x, weight.to(torch::kDouble)); }), HasSubstr("the dtype of x"));
}

TEST(Conv3d, MomentsAreThoseOfTheOutputInEveryFormAndTheNormTakesThemWithTheSameGradients) {
  torch::manual_seed(0);
  struct Case {
    std::vector<int64_t> x, weight;
  };
  const std::vector<Case> cases = {{{2, 24, 9, 10, 12}, {50, 24, 3, 3, 3}}, {{1, 64, 8, 8, 8}, {48, 64, 3, 3, 3}},
                                   {{1, 2, 5, 4, 6}, {16, 2, 3, 3, 3}},     {{2, 5, 6, 7, 6}, {4, 5, 1, 3, 5}}};
  for (const auto dtype : {torch::kFloat, torch::kDouble})
    for (const auto& c : cases) {
      SCOPED_TRACE(testing::Message() << "channels " << c.x[1] << " " << dtype);
      const auto x = torch::randn(c.x, dtype).requires_grad_(), weight = torch::randn(c.weight, dtype).requires_grad_();
      const auto residual = torch::randn({c.x[0], c.weight[0], c.x[2], c.x[3], c.x[4]}, dtype).requires_grad_();
      const auto [out, moments] = conv3d_moments(x, weight);
      const double bound = dtype == torch::kFloat ? 1e-5 : 1e-12;
      EXPECT_TRUE(out.equal(ops::conv3d(x, weight)));
      EXPECT_FALSE(moments.requires_grad());
      const auto rows = out.detach().to(torch::kDouble).flatten(2);
      const auto mean = rows.mean(2), squares = (rows - mean.unsqueeze(2)).square().sum(2);
      EXPECT_LT((moments.select(2, 0) - mean).abs().max().item<double>(), bound * rows.std().item<double>());
      EXPECT_LT(relative_l2(moments.select(2, 1), squares), bound);

      const auto given = instance_norm_act(out, {}, {}, 0.01, residual, 1e-5, moments), own = instance_norm_act(out, {}, {}, 0.01, residual);
      EXPECT_LT(relative_l2(given, own), bound);
      const auto grad = torch::randn_like(own);
      const auto by_given = torch::autograd::grad({given}, {x, weight, residual}, {grad}, /*retain_graph=*/true);
      const auto by_own = torch::autograd::grad({own}, {x, weight, residual}, {grad}, /*retain_graph=*/true);
      for (size_t i = 0; i < by_own.size(); ++i) EXPECT_LT(relative_l2(by_given[i], by_own[i]), 10 * bound) << i;
    }
}

TEST(Conv3d, MomentsOfBfloat16AreRefusedAndThoseOfNothingAreZero) {
  const auto message = message_of([] { conv3d_moments(torch::zeros({1, 2, 3, 3, 3}, torch::kBFloat16), torch::zeros({2, 2, 3, 3, 3}, torch::kBFloat16)); });
  EXPECT_THAT(message, testing::HasSubstr("expected float32 or float64"));
  const auto [out, moments] = conv3d_moments(torch::zeros({0, 2, 3, 3, 3}), torch::zeros({4, 2, 3, 3, 3}));
  EXPECT_EQ(moments.numel(), 0);
}

}  // namespace
}  // namespace fovea::ops
