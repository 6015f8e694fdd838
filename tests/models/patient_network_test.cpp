#include "fovea/models/patient_network.h"

#include <gtest/gtest.h>

#include <limits>

#include "fovea/core/error.h"

namespace fovea::models {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

PatientNetworkConfig everything() {
  PatientNetworkConfig c;
  c.images = 2, c.grid = {16, 8, 8}, c.image_channels = 4, c.image_levels = 2;
  c.numbers = 3, c.categories = {2, 4}, c.measures = 5, c.vocabulary = 30, c.text_tokens = 6;
  c.width = 16, c.heads = 2, c.outputs = 3, c.segment = true;
  return c;
}

PatientBatch draw(const PatientNetworkConfig& c, int64_t B) {
  PatientBatch b;
  b.images = torch::randn({B, c.images, c.grid[0], c.grid[1], c.grid[2]});
  b.images_present = torch::ones({B, c.images}, torch::kBool);
  b.numbers = torch::randn({B, c.numbers});
  b.codes = torch::zeros({B, int64_t(c.categories.size())}, torch::kLong);
  b.measures = torch::randn({B, c.measures});
  b.text = torch::randint(1, c.vocabulary, {B, c.text_tokens}, torch::kLong);
  return b;
}

TEST(PatientNetwork, AnswersForEveryModalityAndReportsTheirGates) {
  torch::manual_seed(1);
  PatientNetwork network(everything());
  const auto answer = network->forward(draw(network->config(), 3));
  EXPECT_EQ(answer.outcome.sizes(), (std::vector<int64_t>{3, 3}));
  EXPECT_EQ(answer.gates.sizes(), (std::vector<int64_t>{3, 5}));
  EXPECT_EQ(answer.segmentation.sizes(), (std::vector<int64_t>{3, 2, 16, 8, 8}));
  EXPECT_GT(answer.gates.min().item<float>(), 0);
}

TEST(PatientNetwork, WhatAMissingModalityHoldsIsNeverLookedAt) {
  torch::manual_seed(2);
  PatientNetwork network(everything());
  network->eval();
  const torch::NoGradGuard no_grad;
  auto batch = draw(network->config(), 2);
  batch.images_present.index_put_({0, 1}, false);
  batch.text[0].zero_();
  const auto expected = network->forward(batch).outcome.clone();
  batch.images[0][1].fill_(kNaN);
  const auto answer = network->forward(batch);
  EXPECT_TRUE(answer.outcome.equal(expected));
  EXPECT_EQ(answer.gates[0][1].item<float>(), 0);
  EXPECT_EQ(answer.gates[0][4].item<float>(), 0);
  EXPECT_GT(answer.gates[1][4].item<float>(), 0);
}

TEST(PatientNetwork, AFrozenEncodersVectorsStandForWordsAndAreNotLookedAtWithoutText) {
  torch::manual_seed(5);
  auto config = everything();
  config.text_width = 7;
  PatientNetwork network(config);
  network->eval();
  const torch::NoGradGuard no_grad;
  auto batch = draw(config, 2);
  EXPECT_THROW(network->forward(batch), ArgumentError);
  batch.text_vectors = torch::randn({2, config.text_tokens, 7});
  batch.text[0].zero_();
  const auto expected = network->forward(batch).outcome.clone();
  batch.text_vectors[0].fill_(kNaN);
  EXPECT_TRUE(network->forward(batch).outcome.equal(expected));
  batch.text_vectors[1].neg_();
  const auto changed = network->forward(batch).outcome;
  EXPECT_TRUE(changed[0].equal(expected[0]));
  EXPECT_GT((changed[1] - expected[1]).abs().max().item<float>(), 0);
  config.vocabulary = 0;
  EXPECT_THROW(PatientNetwork{config}, ArgumentError);
}

TEST(PatientNetwork, APatientOfWhomNothingIsKnownGetsTheAnswerForNothing) {
  torch::manual_seed(3);
  PatientNetwork network(everything());
  network->eval();
  const torch::NoGradGuard no_grad;
  auto batch = draw(network->config(), 2);
  batch.images_present.fill_(false), batch.numbers.fill_(kNaN), batch.codes.fill_(-1), batch.measures.fill_(kNaN), batch.text.zero_();
  const auto answer = network->forward(batch);
  EXPECT_TRUE(answer.outcome.isfinite().all().item<bool>());
  EXPECT_TRUE(answer.outcome[0].equal(answer.outcome[1]));
  EXPECT_EQ(answer.gates.abs().max().item<float>(), 0);
}

TEST(PatientNetwork, ClassRowsAreDistributionsOverTheTokensThatAreThere) {
  torch::manual_seed(4);
  PatientNetwork network(everything());
  network->eval();
  network->set_capture(true);
  auto batch = draw(network->config(), 2);
  batch.images_present.index_put_({1, 0}, false);
  network->forward(batch);
  const auto rows = network->class_rows();  // [blocks,B,H,tokens]
  EXPECT_TRUE(torch::allclose(rows.sum(-1), torch::ones({2, 2, 2}), 1e-5, 1e-5));
  const auto& image = network->modalities()[0];
  EXPECT_EQ(rows.select(1, 1).narrow(-1, image.first, image.count).abs().max().item<float>(), 0);
}

TEST(PatientNetwork, BothTasksReachTheSharedAttention) {
  torch::manual_seed(5);
  PatientNetwork network(everything());
  const auto answer = network->forward(draw(network->config(), 2));
  for (const auto& loss : {answer.outcome.square().sum(), answer.segmentation.square().sum()})
    for (const auto& gradient : torch::autograd::grad({loss}, network->shared_attention_weights(), {}, true)) EXPECT_GT(gradient.abs().sum().item<float>(), 0);
}

TEST(PatientNetwork, ConcatenationHasAsManyWeightsWithinAFewPercent) {
  auto config = everything();
  config.segment = false;
  const auto count = [](const PatientNetworkConfig& c) {
    int64_t n = 0;
    for (const auto& p : PatientNetworkImpl(c).parameters()) n += p.numel();
    return double(n);
  };
  const double tokens = count(config);
  config.fusion = PatientFusion::kConcatenation;
  EXPECT_NEAR(count(config) / tokens, 1, 0.05);
}

TEST(PatientNetwork, OneLineNamesAFieldThatDoesNotFit) {
  auto config = everything();
  config.grid = {16, 9, 8};
  EXPECT_THROW(config.validate(), ArgumentError);
  config = PatientNetworkConfig{};
  EXPECT_THROW(config.validate(), ArgumentError);
  PatientNetwork network(everything());
  auto batch = draw(network->config(), 2);
  batch.images = batch.images.slice(2, 0, 8);
  EXPECT_THROW(network->forward(batch), ArgumentError);
}

}  // namespace
}  // namespace fovea::models
