#include "fovea/models/unetr.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fovea/core/error.h"
#include "fovea/models/registry.h"

namespace fovea::models {
namespace {

UnetrConfig tiny() {
  UnetrConfig config;
  config.img_size = {32, 16, 48};
  config.hidden_size = 24;
  config.mlp_dim = 32;
  config.num_heads = 3;
  config.feature_size = 2;
  return config;
}

TEST(Unetr, HasThe92MillionParametersOfTheLiteratureAndMonaisUnusedNorms) {
  UnetrConfig config;
  config.out_channels = 14;
  const auto network = make_network(config);
  int64_t unused = 0;
  for (const auto& p : network->named_parameters()) unused += p.key().find("norm_cross_attn") != std::string::npos ? p.value().numel() : 0;
  EXPECT_EQ(unused, 12 * 2 * 768);
  EXPECT_EQ(network->parameter_count(), 92'802'478);
  EXPECT_EQ(network->parameter_count() - unused, 92'784'046);
}

TEST(Unetr, GradientsReachEveryParameterThatIsTrained) {
  const auto network = make_network(tiny(), 2);
  network->forward(torch::randn({1, 1, 32, 16, 48})).square().mean().backward();
  for (const auto& p : network->named_parameters()) {
    if (!p.value().requires_grad()) continue;
    ASSERT_TRUE(p.value().grad().defined()) << p.key();
    EXPECT_GT(p.value().grad().abs().max().item<float>(), 0) << p.key();
  }
}

TEST(Unetr, RefusesAnotherSizeThanItsOwn) {
  const auto network = make_network(tiny());
  try {
    network->forward(torch::zeros({1, 1, 32, 32, 48}));
    FAIL();
  } catch (const ArgumentError& error) {
    EXPECT_STREQ(error.what(), "unetr: input is [1, 1, 32, 32, 48], expected the img_size of its configuration, [32, 16, 48]");
  }
  auto config = tiny();
  config.img_size = {30, 16, 48};
  EXPECT_THROW(make_network(config), ArgumentError);
}

TEST(Unetr, RefusesHeadsThatDoNotDivideTheWidthAndAbsurdNumbersOfTokensInOneLine) {
  const auto refusal = [](const UnetrConfig& config) -> std::string {
    try {
      config.validate();
    } catch (const ArgumentError& error) {
      return error.what();
    }
    return "accepted";
  };
  auto config = tiny();
  config.num_heads = 5;
  EXPECT_THAT(refusal(config), testing::AllOf(testing::HasSubstr("num_heads"), testing::HasSubstr("a divisor of hidden_size 24")));
  config = tiny();
  config.img_size = {1'600'000, 1'600'000, 1'600'000};
  EXPECT_THAT(refusal(config), testing::AllOf(testing::HasSubstr("img_size"), testing::HasSubstr("at most 2^24 patches")));
  config.img_size = {0, 16, 16};
  EXPECT_THAT(refusal(config), testing::HasSubstr("img_size"));
  config = tiny();
  EXPECT_EQ(refusal(config), "accepted");
}

TEST(Vit, ClassifiesFromItsClassTokenAndShowsEveryBlock) {
  VitConfig config;
  config.img_size = {16, 16, 16};
  config.patch_size = {8, 8, 8};
  config.hidden_size = 12;
  config.num_heads = 2;
  config.mlp_dim = 16;
  config.num_layers = 3;
  config.classification = true;
  config.num_classes = 5;
  config.pos_embed_type = "sincos";
  Vit vit(config);
  const auto [logits, hidden] = vit(torch::randn({2, 1, 16, 16, 16}));
  EXPECT_EQ(logits.sizes(), (std::vector<int64_t>{2, 5}));
  EXPECT_LE(logits.abs().max().item<float>(), 1.0f);
  ASSERT_EQ(hidden.size(), 3u);
  EXPECT_EQ(hidden[0].sizes(), (std::vector<int64_t>{2, 9, 12}));
  EXPECT_TRUE(vit->named_parameters().contains("classification_head.0.weight"));
}

}  // namespace
}  // namespace fovea::models
