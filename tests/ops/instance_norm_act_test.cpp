#include "fovea/ops/instance_norm_act.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "message_of.h"

namespace fovea::ops {
namespace {

torch::Tensor composed(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias, double slope, const torch::Tensor& residual) {
  auto y = torch::instance_norm(x, weight, bias, {}, {}, /*use_input_stats=*/true, /*momentum=*/0, 1e-5, /*cudnn_enabled=*/false);
  if (residual.defined()) y = y + residual;
  return torch::leaky_relu(y, slope);
}

double relative(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).abs().max().item<double>() / std::max(1.0, b.abs().max().item<double>()); }

TEST(InstanceNormAct, OutputAndEveryGradientEqualTorchsCompositionInAnyLayout) {
  torch::manual_seed(0);
  for (const auto dtype : {torch::kFloat, torch::kDouble}) {
    for (const bool channels_last : {false, true}) {
      std::vector<torch::Tensor> leaves = {torch::randn({2, 5, 3, 4, 6}, dtype), torch::randn({5}, dtype), torch::randn({5}, dtype), torch::randn({2, 5, 3, 4, 6}, dtype)};
      for (auto& leaf : leaves) leaf.requires_grad_();
      const auto grad = torch::randn({2, 5, 3, 4, 6}, dtype);
      const auto layout = [&](const torch::Tensor& t) { return channels_last ? t.contiguous(at::MemoryFormat::ChannelsLast3d) : t; };
      const auto expected = composed(leaves[0], leaves[1], leaves[2], 0.01, leaves[3]);
      const auto expected_grads = torch::autograd::grad({expected}, leaves, {grad});
      const auto out = instance_norm_act(layout(leaves[0]), leaves[1], leaves[2], 0.01, layout(leaves[3]));
      const auto grads = torch::autograd::grad({out}, leaves, {grad});
      const double bound = dtype == torch::kFloat ? 1e-5 : 1e-12;
      EXPECT_LT(relative(out, expected), bound);
      for (size_t i = 0; i < grads.size(); ++i) EXPECT_LT(relative(grads[i], expected_grads[i]), bound) << i;
      EXPECT_TRUE(out.is_contiguous(at::MemoryFormat::ChannelsLast3d));
    }
  }
}

TEST(InstanceNormAct, WithoutAffineResidualAndActivationItIsTheNormAlone) {
  const auto x = torch::randn({1, 3, 2, 5, 4});
  EXPECT_LT(relative(instance_norm_act(x), composed(x, {}, {}, 1, {})), 1e-5);
}

TEST(InstanceNormAct, WithoutAnAffineMapGradientsEqualTorchsThoughTheInputIsNotKept) {
  torch::manual_seed(0);
  for (const auto dtype : {torch::kFloat, torch::kDouble})
    for (const bool joined : {false, true}) {
      std::vector<torch::Tensor> leaves = {torch::randn({2, 5, 3, 4, 6}, dtype)};
      if (joined) leaves.push_back(torch::randn({2, 5, 3, 4, 6}, dtype));
      for (auto& leaf : leaves) leaf.requires_grad_();
      const auto grad = torch::randn({2, 5, 3, 4, 6}, dtype);
      const auto expected = torch::autograd::grad({composed(leaves[0], {}, {}, 0.01, joined ? leaves[1] : torch::Tensor())}, leaves, {grad});
      const auto out = instance_norm_act(leaves[0], {}, {}, 0.01, joined ? std::optional(leaves[1]) : std::nullopt);
      const auto grads = torch::autograd::grad({out}, leaves, {grad});
      for (size_t i = 0; i < grads.size(); ++i) EXPECT_LT(relative(grads[i], expected[i]), dtype == torch::kFloat ? 1e-5 : 1e-12) << i;
    }
}

TEST(InstanceNormAct, Bfloat16IsComputedInFloatAndRoundedOnce) {
  const auto x = torch::randn({1, 4, 6, 6, 6}).to(torch::kBFloat16);
  const auto out = instance_norm_act(x, {}, {}, 0.1);
  EXPECT_EQ(out.scalar_type(), torch::kBFloat16);
  const auto exact = composed(x.to(torch::kFloat), {}, {}, 0.1, {});
  EXPECT_LE((out.to(torch::kFloat) - exact).abs().max().item<float>(), exact.abs().max().item<float>() / 256);
}

TEST(InstanceNormAct, AnEmptyBatchGivesAnEmptyResult) { EXPECT_EQ(instance_norm_act(torch::empty({0, 3, 2, 2, 2})).sizes(), (std::vector<int64_t>{0, 3, 2, 2, 2})); }

TEST(InstanceNormAct, RefusalsNameTheArgument) {
  const auto x = torch::randn({1, 3, 2, 2, 2});
  const auto message = [](auto f) { return message_of(f); };
  using ::testing::HasSubstr;
  EXPECT_THAT(message([&] { instance_norm_act(x[0]); }), HasSubstr("instance_norm_act: x has"));
  EXPECT_THAT(message([&] { instance_norm_act(x, torch::ones({2})); }), HasSubstr("weight has 2 channels, expected 3 (the channels of x)"));
  EXPECT_THAT(message([&] { instance_norm_act(x, {}, {}, 2); }), HasSubstr("slope is 2, expected 0 <= slope <= 1"));
  EXPECT_THAT(message([&] { instance_norm_act(torch::ones({1, 3, 1, 1, 1})); }), HasSubstr("x has one voxel"));
  EXPECT_THAT(message([&] { instance_norm_act(x, {}, {}, 1, torch::ones({1, 3, 2, 2, 3})); }), HasSubstr("residual has 3 voxels along X, expected 2"));
}

}  // namespace
}  // namespace fovea::ops
