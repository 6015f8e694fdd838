#include "fovea/models/swin_unetr.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fovea/core/error.h"
#include "fovea/models/registry.h"

namespace fovea::models {
namespace {

using ::testing::HasSubstr;

SwinUnetrConfig tiny() {
  SwinUnetrConfig config;
  config.feature_size = 6;
  config.num_heads = {1, 2, 2, 4};
  config.window_size = {3, 3, 3};
  config.depths = {2, 1, 1, 1};
  config.out_channels = 3;
  return config;
}

std::string refusal(const SwinUnetrConfig& config) {
  try {
    config.validate();
  } catch (const ArgumentError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(SwinUnetr, ParameterCountsAreThePublishedOnesToTheLastDigit) {
  const auto count = [](SwinUnetrConfig config, int64_t in, int64_t out) {
    config.in_channels = in;
    config.out_channels = out;
    return SwinUnetr(config)->parameter_count();
  };
  EXPECT_EQ(count(swin_unetr_12(), 1, 14), 4'078'220);
  EXPECT_EQ(count(swin_unetr_24(), 1, 14), 15'703'304);
  EXPECT_EQ(count(swin_unetr_48(), 1, 14), 62'187'296);
  EXPECT_EQ(count(swin_unetr_48(), 4, 3), 62'191'941);
  EXPECT_EQ(count(swin_unetr_v2_48(), 1, 14), 72'762'656);
}

TEST(SwinUnetr, GradientsReachEveryParameterOfEveryVariant) {
  for (const bool v2 : {false, true}) {
    auto config = tiny();
    config.use_v2 = v2;
    config.patch_norm = v2;
    config.skip_gate = v2 ? 3 : 0;
    config.deep_supervision = 4;
    const auto network = make_network(config, 3);
    torch::Tensor loss = torch::zeros({});
    for (const auto& logits : network->forward_scales(torch::randn({1, 1, 32, 32, 64}))) loss = loss + logits.square().mean();
    loss.backward();
    for (const auto& p : network->named_parameters()) {
      ASSERT_TRUE(p.value().grad().defined()) << p.key();
      EXPECT_GT(p.value().grad().abs().max().item<float>(), 0) << p.key();
    }
  }
}

TEST(SwinUnetr, SkipGatesAddFiveTimesTheWeightsOfOneGate) {
  auto config = tiny();
  const int64_t without = make_network(config, 3)->parameter_count();
  config.skip_gate = 3;
  EXPECT_EQ(make_network(config, 3)->parameter_count() - without, 5 * (2 * 27 + 2));
}

TEST(SwinUnetr, DeepSupervisionGivesHalfTheResolutionPerHeadAndChangesNothingElse) {
  auto config = tiny();
  const auto plain = make_network(config, 5);
  EXPECT_FALSE(plain->named_parameters().contains("deep_out.0.conv.conv.weight"));
  config.deep_supervision = 2;
  const auto deep = make_network(config, 5);
  deep->eval();
  plain->eval();
  const auto x = torch::randn({1, 1, 64, 32, 32});
  const auto scales = deep->forward_scales(x);
  ASSERT_EQ(scales.size(), 3u);
  EXPECT_EQ(scales[1].sizes(), (std::vector<int64_t>{1, 3, 32, 16, 16}));
  EXPECT_EQ(scales[2].sizes(), (std::vector<int64_t>{1, 3, 16, 8, 8}));
  EXPECT_TRUE(scales[0].equal(deep->forward(x)));
  EXPECT_TRUE(scales[0].equal(plain->forward(x)));
}

TEST(SwinUnetr, RecomputingBlocksGivesTheSameGradientsDropoutIncluded) {
  auto config = tiny();
  config.drop_rate = 0.2;
  config.dropout_path_rate = 0.3;
  const auto x = torch::randn({2, 1, 32, 32, 64});
  std::vector<std::vector<torch::Tensor>> gradients;
  for (const bool recompute : {false, true}) {
    config.use_checkpoint = recompute;
    const auto network = make_network(config, 6);
    torch::manual_seed(8);
    network->forward(x).square().mean().backward();
    gradients.emplace_back();
    for (const auto& p : network->parameters()) gradients.back().push_back(p.grad());
  }
  for (size_t i = 0; i < gradients[0].size(); ++i) {
    EXPECT_LE((gradients[0][i] - gradients[1][i]).norm().item<float>(), 1e-4f * gradients[0][i].norm().item<float>() + 1e-9f) << i;
  }
}

TEST(SwinUnetr, SeedAloneDecidesTheWeightsAndTheDefaultGeneratorIsLeftAlone) {
  torch::manual_seed(11);
  const auto expected = torch::rand({1}).item<float>();
  torch::manual_seed(11);
  const auto a = make_network(tiny(), 1), b = make_network(tiny(), 1), c = make_network(tiny(), 2);
  EXPECT_EQ(torch::rand({1}).item<float>(), expected);
  EXPECT_TRUE(a->parameters()[0].equal(b->parameters()[0]));
  EXPECT_FALSE(a->parameters()[0].equal(c->parameters()[0]));
}

TEST(SwinUnetr, SizesThatTheDecoderCannotRestoreAreRefusedInOneLine) {
  const auto network = make_network(tiny());
  const auto message = [&](std::vector<int64_t> shape) -> std::string {
    try {
      network->forward(torch::zeros(shape));
    } catch (const ArgumentError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message({1, 1, 64, 48, 32}), "network input is [1, 1, 64, 48, 32], expected [B,1,Z,Y,X] with Z, Y, X multiples of 32, 32, 32; pad or crop the volume");
  EXPECT_THAT(message({1, 2, 64, 64, 32}), HasSubstr("expected [B,1,Z,Y,X]"));
  EXPECT_THAT(message({1, 1, 32, 32, 32}), HasSubstr("more than 32 voxels along some axis"));
  EXPECT_THAT(message({1, 64, 64, 64}), HasSubstr("expected [B,1,Z,Y,X]"));
}

TEST(SwinUnetr, PadInputEqualsPaddingByHandAndCropsEveryScale) {
  auto config = tiny();
  config.deep_supervision = 1;
  const auto strict = make_network(config, 7);
  config.pad_input = true;
  const auto padding = make_network(config, 7);
  strict->eval();
  padding->eval();
  const auto x = torch::randn({1, 1, 33, 20, 31});
  const auto expected = strict->forward_scales(torch::constant_pad_nd(x, {0, 1, 0, 12, 0, 31}));
  const auto scales = padding->forward_scales(x);
  EXPECT_TRUE(scales[0].equal(expected[0].slice(2, 0, 33).slice(3, 0, 20).slice(4, 0, 31)));
  EXPECT_TRUE(scales[1].equal(expected[1].slice(2, 0, 17).slice(3, 0, 10).slice(4, 0, 16)));
}

TEST(SwinUnetr, OneAndTwoThreadsGiveTheSameBits) {
  const auto network = make_network(tiny(), 9);
  network->eval();
  const auto x = torch::randn({1, 1, 64, 32, 32});
  const int before = torch::get_num_threads();
  torch::set_num_threads(1);
  const auto one = network->forward(x);
  torch::set_num_threads(2);
  const auto two = network->forward(x);
  torch::set_num_threads(before);
  // Our kernels give the same bits; torch's matrix products and oneDNN's convolutions promise less.
  EXPECT_LT((one - two).abs().max().item<float>(), 1e-5 * one.abs().max().item<float>());
}

TEST(SwinUnetrConfig, NamesTheFieldThatIsWrong) {
  const auto with = [](auto change) {
    auto config = tiny();
    change(config);
    return refusal(config);
  };
  EXPECT_EQ(with([](auto&) {}), "accepted");
  EXPECT_EQ(with([](auto& c) { c.attn_drop_rate = 0.1; }),
            "swin_unetr: attn_drop_rate is 0.1, expected 0: the fused attention has no dropout of weights; use drop_rate or dropout_path_rate");
  EXPECT_THAT(with([](auto& c) { c.num_heads = {1, 5, 2, 4}; }), HasSubstr("num_heads is [1, 5, 2, 4], expected divisors of feature_size * 2^stage, feature_size 6"));
  EXPECT_THAT(with([](auto& c) { c.downsample = "mergingv3"; }), HasSubstr("downsample is mergingv3, expected one of merging, mergingv2, merging_repeated"));
  EXPECT_THAT(with([](auto& c) { c.patch_size = 4; }), HasSubstr("patch_size is 4, expected 2"));
  EXPECT_THAT(with([](auto& c) { c.depths = {2, 2}; }), HasSubstr("expected four numbers"));
  EXPECT_THAT(with([](auto& c) { c.window_size = {7, 0, 7}; }), HasSubstr("window_size is [7, 0, 7]"));
  EXPECT_THAT(with([](auto& c) { c.deep_supervision = 5; }), HasSubstr("deep_supervision is 5, expected 0 to 4"));
  EXPECT_THAT(with([](auto& c) { c.skip_gate = 4; }), HasSubstr("skip_gate is 4, expected 0 or an odd number"));
}

TEST(Registry, EveryNameBuildsAConfigurationAndAWrongOneIsAnsweredWithTheNearest) {
  for (const auto& name : names()) EXPECT_NO_THROW(default_config(name)) << name;
  try {
    default_config("swin_unetr48");
    FAIL();
  } catch (const ArgumentError& error) {
    EXPECT_THAT(error.what(), HasSubstr("no network is called 'swin_unetr48', did you mean 'swin_unetr_48'?"));
  }
}

}  // namespace
}  // namespace fovea::models
