#include "fovea/models/masked_autoencoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fovea/core/error.h"
#include "fovea/models/registry.h"

namespace fovea::models {
namespace {

using testing::HasSubstr;

MaskedAutoencoderConfig tiny() {
  MaskedAutoencoderConfig config;
  config.img_size = {8, 12, 16};
  config.patch_size = {4, 4, 4};
  config.hidden_size = 24, config.mlp_dim = 32, config.num_layers = 2, config.num_heads = 3;
  config.decoder_hidden_size = 12, config.decoder_mlp_dim = 16, config.decoder_num_layers = 1, config.decoder_num_heads = 2;
  return config;
}

torch::Tensor kept_of(std::vector<int64_t> patches) { return torch::tensor(patches).unsqueeze(0); }

TEST(MaskedAutoencoder, ReadsNothingOfHiddenPatches) {
  torch::manual_seed(1);
  MaskedAutoencoder network(tiny());
  const auto kept = kept_of({3, 7, 20});
  const auto x = torch::randn({1, 1, 8, 12, 16});
  auto rows = nn::patch_rows(x, {4, 4, 4});
  const auto hidden = torch::ones({24}, torch::kBool).scatter(0, kept[0], false);
  rows.index_put_({0, hidden}, std::numeric_limits<float>::quiet_NaN());
  const auto changed = nn::volume_of_rows(rows, {2, 3, 4}, {4, 4, 4});
  EXPECT_TRUE(torch::equal(network->rows(x, kept), network->rows(changed, kept)));
}

TEST(MaskedAutoencoder, AllPatchesKeptIsTheSameAsNoMask) {
  torch::manual_seed(2);
  MaskedAutoencoder network(tiny());
  const auto x = torch::randn({2, 1, 8, 12, 16});
  const auto all = torch::arange(24).expand({2, 24}).contiguous();
  EXPECT_LT((network->rows(x, all) - network->rows(x)).abs().max().item<float>(), 1e-5);
}

TEST(MaskedAutoencoder, RowsOfPatchesMakeTheVolumeTheyWereCutFrom) {
  MaskedAutoencoder network(tiny());
  const auto x = torch::randn({2, 1, 8, 12, 16});
  EXPECT_TRUE(torch::equal(network->volume(nn::patch_rows(x, {4, 4, 4})), x));
}

TEST(MaskedAutoencoder, TakesImagesOfTwoAxes) {
  auto config = tiny();
  config.img_size = {12, 16}, config.patch_size = {4, 4}, config.in_channels = 3;
  MaskedAutoencoder network(config);
  const auto rows = network->rows(torch::randn({2, 3, 12, 16}), torch::tensor({{0, 5}, {1, 11}}));
  EXPECT_EQ(rows.sizes(), at::IntArrayRef({2, 12, 48}));
  EXPECT_EQ(network->volume(rows).sizes(), at::IntArrayRef({2, 3, 12, 16}));
}

TEST(MaskedAutoencoder, LossCountsHiddenPatchesAlone) {
  torch::manual_seed(3);
  MaskedAutoencoder network(tiny());
  const auto x = torch::randn({1, 1, 8, 12, 16});
  const auto kept = kept_of({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 23});
  auto rows = nn::patch_rows(x, {4, 4, 4}) + 100;
  rows.select(1, 22).sub_(97);  // off by 3 in the one patch that is hidden
  EXPECT_NEAR(hidden_patch_loss(*network, x, rows, kept).item<float>(), 9, 1e-4);
}

TEST(MaskedAutoencoder, NormalisedTargetsHaveMeanZeroAndUnitUnbiasedVariance) {
  MaskedAutoencoder network(tiny());
  const auto x = 7 + 3 * torch::randn({1, 1, 8, 12, 16});
  const auto kept = kept_of({4});
  // The mean square of 64 values with unbiased variance 1 is 63 / 64.
  EXPECT_NEAR(hidden_patch_loss(*network, x, torch::zeros({1, 24, 64}), kept, /*normalise=*/true).item<float>(), 63.0 / 64, 1e-3);
}

TEST(MaskedAutoencoder, GradientsReachEveryParameterThatIsTrained) {
  torch::manual_seed(4);
  MaskedAutoencoder network(tiny());
  const auto x = torch::randn({2, 1, 8, 12, 16});
  const auto kept = torch::tensor({{1, 5, 9}, {0, 2, 23}});
  hidden_patch_loss(*network, x, network->rows(x, kept), kept).backward();
  for (const auto& p : network->named_parameters()) {
    if (!p.value().requires_grad()) continue;
    ASSERT_TRUE(p.value().grad().defined()) << p.key();
    EXPECT_GT(p.value().grad().abs().max().item<float>(), 0) << p.key();
  }
}

TEST(MaskedAutoencoder, WithClassesItLabelsVoxels) {
  NetworkConfig config = tiny();
  set_channels(config, 2, 3);
  const auto network = make_network(config, 5);
  EXPECT_EQ(network->forward(torch::randn({1, 2, 8, 12, 16})).sizes(), at::IntArrayRef({1, 3, 8, 12, 16}));
}

TEST(MaskedAutoencoder, RefusesWhatDoesNotFit) {
  MaskedAutoencoder network(tiny());
  const auto message = [&](auto&& call) -> std::string {
    try {
      call();
    } catch (const ArgumentError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(message([&] { network->forward(torch::zeros({1, 1, 8, 12, 20})); }), HasSubstr("x is [1, 1, 8, 12, 20]"));
  EXPECT_THAT(message([&] { network->rows(torch::zeros({1, 1, 8, 12, 16}), kept_of({24})); }), HasSubstr("outside 0 to 23"));
  EXPECT_THAT(message([&] {
                auto config = tiny();
                config.img_size = {8, 12, 15};
                MaskedAutoencoder bad(config);
              }),
              HasSubstr("multiples of patch_size"));
}

}  // namespace
}  // namespace fovea::models
