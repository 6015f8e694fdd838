#include "fovea/models/bag_network.h"

#include <gtest/gtest.h>

#include "tests/train/message_of.h"

namespace fovea::models {
namespace {

torch::Tensor offsets_of(std::vector<int64_t> sizes) {
  sizes.insert(sizes.begin(), 0);
  return torch::tensor(sizes).cumsum(0);
}

std::vector<BagConfig> small_networks() {
  AbmilConfig plain{.features = 7, .embed = {6}, .hidden = 4, .pooling = BagPooling::kAttention}, gated = plain, max = plain, mean = plain, deep = plain;
  gated.pooling = BagPooling::kGated, max.pooling = BagPooling::kMax, mean.pooling = BagPooling::kMean, deep.embed = {}, deep.outputs = 3;
  ClamConfig sb{.features = 7, .width = 6, .hidden = 4}, mb = sb;
  mb.multi_branch = true, mb.gated = false;
  return {plain, gated, max, mean, deep, sb, mb, TransmilConfig{.features = 7, .width = 16, .heads = 2, .landmarks = 4}};
}

TEST(BagNetwork, BagsTogetherGiveWhatEachGivesAloneAndWeightsSumToOne) {
  for (const auto& config : small_networks()) {
    const auto network = make_bag_network(config, 3);
    network->eval();
    const auto rows = torch::randn({11, 7});
    const auto offsets = offsets_of({5, 1, 5});
    const auto together = network->forward(rows, offsets).logits, weights = network->weights(rows, offsets);
    for (int64_t b = 0; b < 3; ++b) {
      const auto bag = rows.slice(0, offsets[b].item<int64_t>(), offsets[b + 1].item<int64_t>());
      const auto alone = network->forward(bag, offsets_of({bag.size(0)})).logits[0];
      EXPECT_TRUE(torch::allclose(alone, together[b], 1e-4, 1e-5)) << family_of(config);
      const auto sum = weights.slice(0, offsets[b].item<int64_t>(), offsets[b + 1].item<int64_t>()).sum(0);
      EXPECT_TRUE(torch::allclose(sum, torch::ones_like(sum), 1e-4, 1e-5)) << family_of(config);
      EXPECT_GE(weights.min().item<float>(), 0);
    }
  }
}

TEST(BagNetwork, OrderOfRowsMeansNothingToAttentionAndToPooling) {
  for (const auto& config : small_networks()) {
    if (family_of(config) == "transmil") continue;  // its square gives rows a place
    const auto network = make_bag_network(config, 4);
    network->eval();
    const auto rows = torch::randn({9, 7}), order = torch::randperm(9), offsets = offsets_of({9});
    EXPECT_TRUE(torch::allclose(network->forward(rows, offsets).logits, network->forward(rows.index_select(0, order), offsets).logits, 1e-4, 1e-5));
    EXPECT_TRUE(torch::allclose(network->weights(rows, offsets).index_select(0, order), network->weights(rows.index_select(0, order), offsets), 1e-4, 1e-6));
  }
}

TEST(BagNetwork, EveryWeightThatShapesTheAnswerLearns) {
  for (const auto& config : small_networks()) {
    const auto network = make_bag_network(config, 5);
    network->train();
    const auto answer = network->forward(torch::randn({8, 7}), offsets_of({6, 2}));
    auto sum = answer.logits.square().sum();
    if (answer.instance_logits.defined()) sum = sum + answer.instance_logits.square().sum();
    sum.backward();
    for (const auto& p : network->named_parameters()) EXPECT_TRUE(p.value().grad().defined() && torch::isfinite(p.value().grad()).all().item<bool>()) << p.key();
  }
}

TEST(BagNetwork, DigitsTakeTheNetworkOfThePaper) {
  const auto network = make_bag_network(AbmilConfig{.pooling = BagPooling::kAttention});
  int64_t parameters = 0;
  for (const auto& p : network->parameters()) parameters += p.numel();
  // 20 of 5x5, 50 of 20x5x5, 800 -> 500, 500 -> 128 -> 1, 500 -> 1, each with biases
  EXPECT_EQ(parameters, 520 + 25050 + 400500 + 64128 + 129 + 501);
}

TEST(BagNetwork, RowsAndOffsetsThatDoNotFitAreRefusedWithOneLine) {
  const auto network = make_bag_network(AbmilConfig{.features = 7});
  const auto digits = make_bag_network(AbmilConfig{});
  const auto rows = torch::zeros({4, 7});
  EXPECT_EQ(message_of([&] { network->forward(rows.slice(1, 1), offsets_of({4})); }), "abmil: rows are [4, 6], expected [N,7]");
  EXPECT_EQ(message_of([&] { digits->forward(rows, offsets_of({4})); }), "abmil: rows are [4, 7], expected [N,1,28,28]");
  EXPECT_EQ(message_of([&] { network->forward(rows, offsets_of({2, 0, 2})); }), "abmil: bag 1 has no rows (offsets 2 to 2)");
  EXPECT_EQ(message_of([&] { network->forward(rows, offsets_of({3})); }), "abmil: offsets go from 0 to 3, expected 0 to the 4 rows");
  EXPECT_EQ(message_of([&] { default_bag_config("transmill"); }), "no network for bags is called 'transmill', did you mean 'transmil'?; there are abmil, clam, transmil");
  EXPECT_EQ(message_of([] { make_bag_network(TransmilConfig{.heads = 7}); }), "transmil: width is 512, expected a multiple of the 7 heads");
}

}  // namespace
}  // namespace fovea::models
