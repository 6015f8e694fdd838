#include "fovea/ops/linear.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "message_of.h"

namespace fovea::ops {
namespace {

using torch::Tensor;

Tensor normed(const Tensor& x, const Tensor& weight, const Tensor& bias) { return weight.defined() ? torch::layer_norm(x, {x.size(-1)}, weight, bias, 1e-5) : x; }

double relative(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>() / std::max(1.0, b.abs().max().item<double>()); }

TEST(LinearOp, OutputAndEveryGradientEqualTorchsCompositionInAnyLayout) {
  torch::manual_seed(0);
  for (const auto dtype : {torch::kFloat, torch::kDouble}) {
    for (const bool transposed : {false, true}) {
      std::vector<Tensor> leaves = {torch::randn({2, 3, 5, 12}, dtype), torch::randn({20, 12}, dtype), torch::randn({20}, dtype),
                                    torch::randn({12}, dtype),          torch::randn({12}, dtype),     torch::randn({2, 3, 5, 20}, dtype)};
      for (auto& leaf : leaves) leaf.requires_grad_();
      const auto upstream = torch::randn({2, 3, 5, 20}, dtype);
      const auto layout = [&](const Tensor& t) { return transposed ? t.transpose(1, 3).contiguous().transpose(1, 3) : t; };
      const auto expected = torch::linear(normed(leaves[0], leaves[3], leaves[4]), leaves[1], leaves[2]) + leaves[5];
      const auto out = ops::linear(layout(leaves[0]), leaves[1], leaves[2], leaves[3], leaves[4], 1e-5, layout(leaves[5]));
      const auto expected_gradients = torch::autograd::grad({expected}, leaves, {upstream});
      const auto gradients = torch::autograd::grad({out}, leaves, {layout(upstream)});
      const double bound = dtype == torch::kFloat ? 1e-5 : 1e-12;
      EXPECT_LT(relative(out, expected), bound);
      for (size_t i = 0; i < gradients.size(); ++i) EXPECT_LT(relative(gradients[i], expected_gradients[i]), bound) << i;
    }
  }
}

TEST(MlpOp, OutputAndEveryGradientEqualTorchsCompositionWithAndWithoutItsInput) {
  torch::manual_seed(0);
  for (const auto dtype : {torch::kFloat, torch::kDouble}) {
    for (const bool add_input : {false, true}) {
      std::vector<Tensor> leaves = {torch::randn({2, 7, 12}, dtype), torch::randn({50, 12}, dtype), torch::randn({50}, dtype), torch::randn({12, 50}, dtype),
                                    torch::randn({12}, dtype),       torch::randn({12}, dtype),     torch::randn({12}, dtype)};
      for (auto& leaf : leaves) leaf.requires_grad_();
      const auto upstream = torch::randn({2, 7, 12}, dtype);
      auto expected = torch::linear(torch::gelu(torch::linear(normed(leaves[0], leaves[5], leaves[6]), leaves[1], leaves[2])), leaves[3], leaves[4]);
      if (add_input) expected = expected + leaves[0];
      const auto out = ops::mlp(leaves[0], leaves[1], leaves[2], leaves[3], leaves[4], leaves[5], leaves[6], 1e-5, add_input);
      const auto expected_gradients = torch::autograd::grad({expected}, leaves, {upstream});
      const auto gradients = torch::autograd::grad({out}, leaves, {upstream});
      const double bound = dtype == torch::kFloat ? 1e-5 : 1e-12;
      EXPECT_LT(relative(out, expected), bound);
      for (size_t i = 0; i < gradients.size(); ++i) EXPECT_LT(relative(gradients[i], expected_gradients[i]), bound) << i;
    }
  }
}

TEST(LinearOp, WithoutBiasNormAndResidualItIsTheMatrixProductAlone) {
  const auto x = torch::randn({9, 5}), weight = torch::randn({3, 5});
  EXPECT_LT(relative(ops::linear(x, weight), torch::linear(x, weight)), 1e-6);
  EXPECT_LT(relative(ops::linear(x[0], weight), torch::linear(x[0], weight)), 1e-6);
}

TEST(LinearOp, AFrozenWeightGetsNoGradientAndTheInputStillDoes) {
  const auto x = torch::randn({9, 5}).requires_grad_(), weight = torch::randn({3, 5});
  ops::linear(x, weight).sum().backward();
  EXPECT_LT(relative(x.grad(), weight.sum(0).expand({9, 5})), 1e-6);
  EXPECT_FALSE(weight.grad().defined());
}

TEST(LinearOp, Bfloat16IsComputedInFloatAndRoundedOnce) {
  const auto x = torch::randn({8, 16}).to(torch::kBFloat16), weight = torch::randn({4, 16}).to(torch::kBFloat16);
  const auto out = ops::linear(x, weight);
  EXPECT_EQ(out.scalar_type(), torch::kBFloat16);
  const auto exact = torch::linear(x.to(torch::kFloat), weight.to(torch::kFloat));
  EXPECT_LE((out.to(torch::kFloat) - exact).abs().max().item<float>(), exact.abs().max().item<float>() / 256);
}

TEST(LinearOp, NoRowsGiveNoRowsAndZeroGradients) {
  const auto x = torch::empty({0, 5}), weight = torch::randn({3, 5}).requires_grad_();
  const auto out = ops::linear(x, weight);
  EXPECT_EQ(out.sizes(), (std::vector<int64_t>{0, 3}));
  out.sum().backward();
  EXPECT_EQ(weight.grad().abs().sum().item<float>(), 0);
}

TEST(LinearOp, RefusalsNameTheArgument) {
  using ::testing::HasSubstr;
  const auto x = torch::randn({4, 5}), weight = torch::randn({3, 5});
  EXPECT_THAT(message_of([&] { ops::linear(x, weight[0]); }), HasSubstr("linear: weight has"));
  EXPECT_THAT(message_of([&] { ops::linear(x, torch::randn({3, 6})); }), HasSubstr("weight has 6 channels, expected 5 (the channels of x)"));
  EXPECT_THAT(message_of([&] { ops::linear(x, weight, torch::randn({4})); }), HasSubstr("bias has 4 channels, expected 3"));
  EXPECT_THAT(message_of([&] { ops::linear(x, weight, {}, torch::ones({4})); }), HasSubstr("norm_weight has 4 channels, expected 5"));
  EXPECT_THAT(message_of([&] { ops::linear(x, weight, {}, {}, torch::ones({5})); }), HasSubstr("norm_bias without norm_weight"));
  EXPECT_THAT(message_of([&] { ops::linear(x, weight, {}, {}, {}, 1e-5, torch::ones({4, 4})); }), HasSubstr("residual has shape [4,4], expected the shape of the output, [4,3]"));
  EXPECT_THAT(message_of([&] { ops::mlp(x, weight, {}, torch::randn({5, 4}), {}); }), HasSubstr("weight2 has 4 channels, expected 3 (the rows of weight1)"));
  EXPECT_THAT(message_of([&] { ops::mlp(x, weight, {}, torch::randn({4, 3}), {}, {}, {}, 1e-5, true); }), HasSubstr("weight2 has 4 rows, expected 5 (the channels of x, with add_input)"));
}

}  // namespace
}  // namespace fovea::ops
