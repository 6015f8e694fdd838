#include "fovea/train/instance_loss.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "tests/train/message_of.h"

namespace fovea::train {
namespace {

TEST(ClamInstanceLoss, JudgesTheEndsOfTheAttentionAndLeavesTheMiddleAlone) {
  const auto scores = torch::arange(10, torch::kFloat32).unsqueeze(1);
  const auto logits = torch::zeros({10, 2, 2}, torch::requires_grad());
  const auto loss = clam_instance_loss(scores, logits, torch::tensor({0, 10}), torch::tensor({1}), {.rows = 3});
  EXPECT_NEAR(loss.item<double>(), std::log(2.0), 1e-6);
  loss.backward();
  const auto touched = logits.grad().abs().sum(2) > 0;  // [10,2]
  EXPECT_TRUE(torch::equal(touched.select(1, 1), torch::tensor({1, 1, 1, 0, 0, 0, 0, 1, 1, 1}).to(torch::kBool)));
  EXPECT_FALSE(touched.select(1, 0).any().item<bool>());
  EXPECT_LT(logits.grad()[9][1][1].item<float>(), 0);  // towards 'evidence'
  EXPECT_GT(logits.grad()[0][1][1].item<float>(), 0);
}

TEST(ClamInstanceLoss, ABagSmallerThanAskedForGivesAllItHas) {
  const auto logits = torch::zeros({2, 2, 2});
  const auto loss = clam_instance_loss(torch::zeros({2, 1}), logits, torch::tensor({0, 2}), torch::tensor({0}));
  EXPECT_NEAR(loss.item<double>(), std::log(2.0), 1e-6);
  const auto svm = clam_instance_loss(torch::zeros({2, 1}), logits, torch::tensor({0, 2}), torch::tensor({0}), {.loss = InstanceLoss::kSmoothSvm});
  EXPECT_NEAR(svm.item<double>(), std::log(1 + std::exp(1.0)), 1e-6);
}

TEST(ClamInstanceLoss, LabelsThatAreNoClassAreRefused) {
  EXPECT_EQ(message_of([] { clam_instance_loss(torch::zeros({2, 1}), torch::zeros({2, 2, 2}), torch::tensor({0, 2}), torch::tensor({2})); }),
            "clam instance loss: label 2 of bag 0, expected 0 to 1");
}

}  // namespace
}  // namespace fovea::train
