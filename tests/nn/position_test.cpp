// What says where tokens are and how sharply heads look: rotary position, continuous bias, resized tables, temperature.
#include <gtest/gtest.h>

#include <cmath>

#include "fovea/nn/continuous_bias.h"
#include "fovea/nn/head_temperature.h"
#include "fovea/nn/rotary.h"
#include "fovea/nn/transformer_block.h"
#include "fovea/nn/window_attention.h"

namespace fovea::nn {
namespace {

double difference(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).abs().max().item<double>(); }

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "accepted";
}

const auto kDouble = torch::TensorOptions(torch::kFloat64);

TEST(Rotary, ScoresDependOnTheDisplacementAlone) {
  torch::manual_seed(0);
  for (const RotaryPairing pairing : {RotaryPairing::kHalf, RotaryPairing::kInterleaved})
    for (const int64_t channels : {6, 16, 24}) {
      Rotary rotary(RotaryOptions(channels).pairing(pairing).base(100));
      const auto q = torch::randn({2, 3, 30, channels}, kDouble), k = torch::randn({2, 3, 30, channels}, kDouble);
      const auto here = grid_coordinates({2, 3, 5}), there = here + torch::tensor({4.5, -7.0, 100.0}, torch::kFloat32);
      const auto scores = [&](const torch::Tensor& c) {
        return torch::matmul(rotary(q, c), rotary(k, c).transpose(-1, -2));
      };
      EXPECT_LT(difference(scores(here), scores(there)), 1e-11) << channels;
      EXPECT_GT(difference(scores(here), torch::matmul(q, k.transpose(-1, -2))), 0.1) << channels;
      EXPECT_LT(difference(rotary(q, here).norm(2, -1), q.norm(2, -1)), 1e-12) << channels;
    }
}

TEST(Rotary, TurnsEachPairOfEachAxisByItsOwnAngle) {
  const auto x = torch::arange(1, 14, kDouble).view({1, 1, 1, 13});
  const auto at = torch::tensor({{2.0, 3.0, 5.0}}, kDouble);
  const double position[] = {2, 3, 5}, rate[] = {1, 0.1};  // base 100, 2 pairs an axis
  for (const bool half : {true, false}) {
    const auto out =
        Rotary(RotaryOptions(13).pairing(half ? RotaryPairing::kHalf : RotaryPairing::kInterleaved).base(100))
            ->forward(x, at)
            .flatten();
    for (int axis = 0; axis < 3; ++axis)
      for (int pair = 0; pair < 2; ++pair) {
        const int a = 4 * axis + (half ? pair : 2 * pair), b = a + (half ? 2 : 1);
        const double angle = position[axis] * rate[pair], c = std::cos(angle), s = std::sin(angle);
        EXPECT_NEAR(out[a].item<double>(), (a + 1) * c - (b + 1) * s, 1e-12);
        EXPECT_NEAR(out[b].item<double>(), (a + 1) * s + (b + 1) * c, 1e-12);
      }
    EXPECT_EQ(out[12].item<double>(), 13);  // beside the pairs: left alone
  }
}

TEST(Rotary, PairingsAreTheSameMathematicsWithChannelsInAnotherOrder) {
  const auto x = torch::randn({1, 2, 12, 24});
  const auto at = grid_coordinates({2, 2, 3});
  // Half: axis, member, pair. Interleaved: axis, pair, member.
  const auto order = torch::arange(24).view({3, 2, 4}).transpose(1, 2).flatten();
  const auto half = Rotary(RotaryOptions(24))->forward(x, at);
  const auto interleaved =
      Rotary(RotaryOptions(24).pairing(RotaryPairing::kInterleaved))->forward(x.index_select(3, order), at);
  EXPECT_LT(difference(half.index_select(3, order), interleaved), 1e-6);
}

TEST(Rotary, KeepsTheDtypeAndGradientsTurnBack) {
  Rotary rotary(RotaryOptions(8));
  const auto at = grid_coordinates({1, 1, 4});
  EXPECT_EQ(rotary(torch::randn({1, 1, 4, 8}, torch::kBFloat16), at).scalar_type(), torch::kBFloat16);
  const auto x = torch::randn({1, 1, 4, 8}, kDouble.requires_grad(true)), g = torch::randn({1, 1, 4, 8}, kDouble);
  rotary(x, at).backward(g);
  EXPECT_LT(difference(rotary(x.grad(), at), g), 1e-12);  // a rotation's gradient is the inverse rotation
  EXPECT_EQ(rotary(torch::zeros({1, 1, 0, 8}), torch::zeros({0, 3})).size(2), 0);
}

TEST(Rotary, RefusesWhatDoesNotFit) {
  EXPECT_NE(refusal([] { Rotary(RotaryOptions(5)); }).find("channels is 5, expected at least 6"), std::string::npos);
  Rotary rotary(RotaryOptions(8));
  EXPECT_NE(refusal([&] { rotary(torch::zeros({1, 1, 4, 8}), torch::zeros({3, 3})); }).find("expected [4,3]"),
            std::string::npos);
  EXPECT_NE(refusal([&] { rotary(torch::zeros({1, 1, 4, 9}), torch::zeros({4, 3})); }).find("expected [B,H,N,8]"),
            std::string::npos);
}

TEST(ContinuousBias, CoordinatesAreLogSpacedWithTheTrainedCornerAtPlusMinusLog9OverLog8) {
  const auto c = log_spaced_displacements({1, 3, 4}, {1, 3, 4});
  ASSERT_EQ(c.sizes(), (std::vector<int64_t>{1 * 5 * 7, 3}));
  const auto expected = [](double r) { return std::copysign(std::log2(1 + std::abs(8 * r)) / 3, r); };
  for (int64_t y = -2; y <= 2; ++y)
    for (int64_t x = -3; x <= 3; ++x) {
      const auto row = c[(y + 2) * 7 + x + 3];
      EXPECT_EQ(row[0].item<float>(), 0);
      EXPECT_NEAR(row[1].item<float>(), y ? expected(double(y) / 2) : 0, 1e-6);
      EXPECT_NEAR(row[2].item<float>(), x ? expected(double(x) / 3) : 0, 1e-6);
    }
}

TEST(ContinuousBias, IsTheSameFunctionOfTheDisplacementInEveryWindow) {
  torch::manual_seed(1);
  ContinuousBias bias(2, Triple{4, 4, 4});
  const auto small = bias(Triple{3, 2, 4}).view({5, 3, 7, 2}), large = bias(Triple{5, 4, 6}).view({9, 7, 11, 2});
  EXPECT_LT(difference(small, large.slice(0, 2, 7).slice(1, 2, 5).slice(2, 2, 9)), 1e-5);
  EXPECT_GT(small.min().item<float>(), 0);
  EXPECT_LT(small.max().item<float>(), 16);
}

TEST(ResizeBiasTable, KeepsLinearFunctionsOfTheDisplacementAndTheSameWindow) {
  const Triple from{3, 2, 4}, to{4, 5, 2};
  const auto linear = [](const Triple& w) {  // in shares of the window's edge
    std::vector<torch::Tensor> axes;
    for (const int64_t n : w) axes.push_back(torch::arange(-(n - 1), n, kDouble) / double(n - 1));
    const auto g = torch::meshgrid(axes, "ij");
    return torch::stack({g[0] - 2 * g[1] + 3 * g[2], 1 + g[2]}, -1).reshape({-1, 2});
  };
  EXPECT_LT(difference(resize_bias_table(linear(from), from, to), linear(to)), 1e-12);
  const auto table = torch::randn({5 * 3 * 7, 2}, kDouble);
  EXPECT_TRUE(resize_bias_table(table, from, from).equal(table));
  EXPECT_EQ(resize_bias_table(torch::randn({2197, 3}), {7, 7, 7}, {8, 8, 8}).sizes(), (std::vector<int64_t>{3375, 3}));
  EXPECT_NE(refusal([] { resize_bias_table(torch::zeros({2197, 3}), {8, 8, 8}, {7, 7, 7}); }).find("[3375,H]"),
            std::string::npos);
}

TEST(HeadTemperature, MultipliesScoresOfEachHeadByItsOwnBeta) {
  torch::manual_seed(2);
  SelfAttention layer(SelfAttentionOptions(12, 3).temperature(true)), plain(SelfAttentionOptions(12, 3));
  torch::NoGradGuard no_grad;
  for (const auto& p : plain->named_parameters()) p.value().copy_(layer->named_parameters()[p.key()]);
  const auto x = torch::randn({2, 9, 12}), queries = torch::arange(9);
  layer->set_capture(true), plain->set_capture(true);
  EXPECT_TRUE(layer(x).equal(plain(x)));  // starts at beta = 1
  layer->temperature->logit_scale.copy_(torch::tensor({-2.0, 0.0, 3.0}, torch::kFloat32).view({3, 1, 1}));
  layer(x);
  const auto before = plain->rows(queries), after = layer->rows(queries);
  // softmax(beta s) is the softmax of beta log softmax(s).
  const auto expected = (before.log() * layer->temperature->beta().view({1, 3, 1, 1})).softmax(-1);
  EXPECT_LT(difference(after, expected), 1e-5);
  EXPECT_LT(difference(layer->temperature->tau() * layer->temperature->beta(), torch::ones({3})), 1e-6);
  const auto entropy = -(after * after.log()).sum(-1).mean(torch::IntArrayRef({0, 2}));
  EXPECT_GT(entropy[0].item<float>(), entropy[2].item<float>());  // high tau is flat, high beta is sharp
}

TEST(HeadTemperature, IsBoundedWhereAskedAndLearnsInLogSpace) {
  HeadTemperature bounded(HeadTemperatureOptions(2).initial_beta(10).largest_beta(100));
  EXPECT_NEAR(bounded->logit_scale[1].item<float>(), std::log(10.0), 1e-6);
  torch::NoGradGuard no_grad;
  bounded->logit_scale.fill_(7);
  EXPECT_NEAR(bounded->beta()[0].item<float>(), 100, 1e-4);
  EXPECT_NE(refusal([] { HeadTemperature(HeadTemperatureOptions(2).initial_beta(0)); }).find("initial_beta is 0"),
            std::string::npos);
  EXPECT_NE(refusal([&] { bounded(torch::zeros({1, 3, 4, 8})); }).find("expected [B,2,N,C]"), std::string::npos);
}

TEST(WindowAttention, CosineScoresIgnoreTheSizeOfQueriesAndKeys) {
  torch::manual_seed(3);
  WindowAttention layer(WindowAttentionOptions(12, 3).window({2, 2, 2}).shift({1, 1, 1}).qkv_bias(false).scores(
      WindowScores::kCosine));
  const auto x = torch::randn({1, 4, 5, 6, 12}), before = layer(x);
  torch::NoGradGuard no_grad;
  layer->qkv->weight.slice(0, 0, 24).mul_(50);
  EXPECT_LT(difference(layer(x), before), 1e-4);
}

TEST(WindowAttention, CosineAndContinuousBiasServeClippedWindowsPaddingAndCaptureAndTrainEveryParameter) {
  torch::manual_seed(4);
  for (const PaddedTokens padded : {PaddedTokens::kExclude, PaddedTokens::kAttend}) {
    WindowAttention layer(WindowAttentionOptions(12, 3)
                              .window({3, 3, 3})
                              .shift({1, 1, 1})
                              .padded_tokens(padded)
                              .scores(WindowScores::kCosine)
                              .bias(WindowBias::kContinuous));
    layer->set_capture(true);
    const auto x = torch::randn({1, 5, 2, 4, 12});
    layer(x).square().sum().backward();
    for (const auto& p : layer->named_parameters()) {
      ASSERT_TRUE(p.value().grad().defined()) << p.key();
      EXPECT_GT(p.value().grad().abs().sum().item<float>(), 0) << p.key();
    }
    const auto weights = std::get<0>(layer->rows(torch::arange(40)));
    EXPECT_LT(difference(weights.sum(-1), torch::ones({1, 3, 40})), 1e-5);
  }
}

TEST(WindowAttention, LargerThanTheGridIsGlobalAttentionAndZeroIsRefused) {
  torch::manual_seed(5);
  WindowAttention layer(WindowAttentionOptions(8, 2).window({9, 9, 9}).shift({4, 4, 4}));
  layer->to(torch::kDouble);
  const auto x = torch::randn({1, 2, 3, 4, 8}, kDouble);
  const auto qkv = layer->qkv(x).view({24, 3, 2, 4}).permute({1, 2, 0, 3});
  layer->relative_position_bias_table.set_data(torch::zeros_like(layer->relative_position_bias_table));
  const auto weights = (torch::matmul(qkv[0], qkv[1].transpose(-1, -2)) / 2).softmax(-1);
  const auto expected = layer->proj(torch::matmul(weights, qkv[2]).transpose(0, 1).reshape({1, 2, 3, 4, 8}));
  EXPECT_LT(difference(layer(x), expected), 1e-12);
  EXPECT_NE(refusal([] { WindowAttention(WindowAttentionOptions(8, 2).window({0, 2, 2})); }).find("window is [0, 2, 2]"),
            std::string::npos);
}

TEST(Heads, ThatDoNotDivideTheWidthAreRefusedInOneLine) {
  for (const int64_t heads : {5, 0, -1}) {
    const std::string says = "expected a multiple of the " + std::to_string(heads) + " heads";
    EXPECT_NE(refusal([&] { SelfAttention(SelfAttentionOptions(12, heads)); }).find(says), std::string::npos);
    EXPECT_NE(refusal([&] { WindowAttention(WindowAttentionOptions(12, heads)); }).find(says), std::string::npos);
  }
}

TEST(SelfAttention, OfNoTokensGivesNoTokens) {
  SelfAttention layer(SelfAttentionOptions(12, 3));
  EXPECT_EQ(layer(torch::zeros({2, 0, 12})).sizes(), (std::vector<int64_t>{2, 0, 12}));
  EXPECT_EQ(layer(torch::zeros({0, 4, 12})).sizes(), (std::vector<int64_t>{0, 4, 12}));
}

}  // namespace
}  // namespace fovea::nn
