#include "fovea/train/contrastive_loss.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fovea/core/error.h"
#include "tests/train/message_of.h"

namespace fovea::train {
namespace {

TEST(ContrastiveLoss, IsTheCrossEntropyOfRowsAndOfColumns) {
  auto generator = at::detail::createCPUGenerator(1);
  auto scores = torch::randn({5, 5}, generator, torch::kFloat64).requires_grad_();
  const auto own = torch::arange(5);
  const auto loss = contrastive_loss(scores), expected = torch::nn::functional::cross_entropy(10 * scores, own) +
                                                         torch::nn::functional::cross_entropy(10 * scores.t(), own);
  EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-12);
  const auto difference = torch::autograd::grad({loss}, {scores})[0] - torch::autograd::grad({expected}, {scores})[0];
  EXPECT_LT(difference.abs().max().item<double>(), 1e-12);
}

TEST(ContrastiveLoss, OfScoresThatTellNothingIsTwiceTheLogarithmOfTheirNumber) {
  EXPECT_NEAR(contrastive_loss(torch::zeros({8, 8}, torch::kFloat64)).item<double>(), 2 * std::log(8), 1e-12);
  EXPECT_EQ(contrastive_loss(torch::ones({1, 1})).item<double>(), 0);
}

TEST(ContrastiveLoss, RefusesWhatIsNotSquareOrEmpty) {
  EXPECT_THAT(message_of([] { contrastive_loss(torch::zeros({3, 4})); }), testing::HasSubstr("scores are [3, 4], expected [B,B]"));
  EXPECT_THAT(message_of([] { contrastive_loss(torch::zeros({0, 0})); }), testing::HasSubstr("expected [B,B]"));
}

}  // namespace
}  // namespace fovea::train
