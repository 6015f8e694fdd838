#include "fovea/train/loss.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "fovea/core/error.h"
#include "message_of.h"

namespace fovea::train {
namespace {

using torch::Tensor;

/// The definition, by torch in f64: softmax, one-hot, sums.
Tensor definition(const Tensor& logits, const Tensor& labels, const SegmentationLossConfig& config) {
  const int64_t K = logits.size(1);
  const Tensor x = logits.to(torch::kDouble).flatten(2), p = torch::softmax(x, 1);
  const Tensor y = labels.to(torch::kLong).reshape({x.size(0), -1});
  const Tensor use = y.ne(config.ignore_label).to(torch::kDouble).unsqueeze(1);
  const Tensor target = torch::one_hot(y.clamp(0, K - 1), K).movedim(2, 1).to(torch::kDouble) * use;
  const std::vector<int64_t> dims = config.batch_dice ? std::vector<int64_t>{0, 2} : std::vector<int64_t>{2};
  Tensor dice =
      1 - (2 * (p * target).sum(dims) + config.smooth) / ((p * use).sum(dims) + target.sum(dims) + config.smooth);
  dice = dice.slice(-1, config.include_background ? 0 : 1).mean();
  Tensor weight = torch::ones({K}, torch::kDouble);
  for (size_t k = 0; k < config.class_weights.size(); ++k) weight[int64_t(k)] = config.class_weights[k];
  const Tensor weighted = target * weight.view({1, K, 1});
  const Tensor ce = -(weighted * torch::log_softmax(x, 1)).sum() / weighted.sum();
  return config.dice_weight * dice + config.cross_entropy_weight * ce;
}

struct Case {
  std::vector<int64_t> grid;
  int64_t B, K;
  SegmentationLossConfig config;
};

std::vector<Case> cases() {
  SegmentationLossConfig sample, weights, ignore, background, smooth;
  sample.batch_dice = false;
  weights.class_weights = {0.2, 1, 3};
  ignore.ignore_label = 2;
  background.include_background = true, background.dice_weight = 0.3, background.cross_entropy_weight = 2;
  smooth.smooth = 1, smooth.batch_dice = false, smooth.ignore_label = 0;
  return {{{3, 5, 7}, 2, 3, {}},
          {{16, 16, 16}, 2, 3, sample},
          {{17, 19, 13}, 1, 3, weights},
          {{1, 1, 1}, 1, 3, background},
          {{4, 8, 8}, 3, 3, ignore},
          {{16, 16, 17}, 3, 14, smooth},
          {{256}, 2, 2, {}},
          {{30, 40}, 2, 5, background}};
}

TEST(DiceCrossEntropy, ValueAndGradientMatchTheDefinitionInDouble) {
  for (const Case& c : cases()) {
    torch::manual_seed(1);
    std::vector<int64_t> shape{c.B, c.K};
    shape.insert(shape.end(), c.grid.begin(), c.grid.end());
    const Tensor x = (3 * torch::randn(shape, torch::kDouble)).set_requires_grad(true);
    shape.erase(shape.begin() + 1);
    Tensor y = torch::randint(0, c.K, shape, torch::kLong);
    y.flatten()[0] = 1;  // at least one voxel counts
    const Tensor ours = dice_cross_entropy(x, y, c.config), theirs = definition(x, y, c.config);
    EXPECT_NEAR(ours.item<double>(), theirs.item<double>(), 1e-12);
    const Tensor g = torch::autograd::grad({ours}, {x})[0], h = torch::autograd::grad({theirs}, {x})[0];
    EXPECT_LT((g - h).abs().max().item<double>(), 1e-12 * std::max(1.0, h.abs().max().item<double>())) << shape;
  }
}

TEST(DiceCrossEntropy, SingleAndBrainFloatStayWithinTheirPrecision) {
  for (const Case& c : cases()) {
    torch::manual_seed(2);
    std::vector<int64_t> shape{c.B, c.K};
    shape.insert(shape.end(), c.grid.begin(), c.grid.end());
    const Tensor base = 3 * torch::randn(shape);
    shape.erase(shape.begin() + 1);
    Tensor y = torch::randint(0, c.K, shape, torch::kLong);
    y.flatten()[0] = 1;
    for (const auto type : {torch::kFloat, torch::kBFloat16}) {
      const Tensor x = base.to(type).set_requires_grad(true),
                   exact = x.detach().to(torch::kDouble).set_requires_grad(true);
      const Tensor ours = dice_cross_entropy(x, y, c.config), theirs = definition(exact, y, c.config);
      EXPECT_EQ(ours.scalar_type(), torch::kFloat) << "softmax and sums in f32 whatever autocast says";
      EXPECT_NEAR(ours.item<double>(), theirs.item<double>(), 2e-6 * std::max(1.0, theirs.item<double>()));
      const Tensor g = torch::autograd::grad({ours}, {x})[0].to(torch::kDouble),
                   h = torch::autograd::grad({theirs}, {exact})[0];
      const double rounding = type == torch::kFloat ? 2e-6 : 4e-3;  // of the stored gradient: 8 bits in bf16
      EXPECT_LT((g - h).abs().max().item<double>(), rounding * h.abs().max().item<double>()) << shape;
    }
  }
}

TEST(DiceCrossEntropy, ChannelsLastLogitsGiveTheSameBitsWithoutACopy) {
  torch::manual_seed(3);
  const Tensor x = torch::randn({2, 4, 9, 10, 11}), y = torch::randint(0, 4, {2, 1, 9, 10, 11}, torch::kByte);
  const Tensor a = x.clone().set_requires_grad(true),
               b = x.to(torch::kFloat, false, true, at::MemoryFormat::ChannelsLast3d).set_requires_grad(true);
  dice_cross_entropy(a, y, {}).backward();
  dice_cross_entropy(b, y, {}).backward();
  EXPECT_TRUE(torch::equal(a.grad(), b.grad()));
  EXPECT_TRUE(b.grad().is_contiguous(at::MemoryFormat::ChannelsLast3d));
}

TEST(DiceCrossEntropy, BitsDoNotDependOnTheNumberOfThreads) {
  torch::manual_seed(4);
  const Tensor x = torch::randn({2, 3, 24, 24, 24}), y = torch::randint(0, 3, {2, 24, 24, 24});
  const int threads = torch::get_num_threads();
  std::vector<Tensor> losses, gradients;
  for (const int n : {1, 2, 3}) {
    torch::set_num_threads(n);
    const Tensor leaf = x.clone().set_requires_grad(true);
    losses.push_back(dice_cross_entropy(leaf, y, {}));
    losses.back().backward();
    gradients.push_back(leaf.grad());
  }
  torch::set_num_threads(threads);
  for (size_t i = 1; i < losses.size(); ++i) {
    EXPECT_TRUE(torch::equal(losses[0], losses[i]));
    EXPECT_TRUE(torch::equal(gradients[0], gradients[i]));
  }
}

TEST(DiceCrossEntropy, HugeLogitsGiveFiniteValuesAndGradients) {
  const Tensor y = torch::tensor({0, 1, 1, 0}).view({1, 4});
  const Tensor x =
      torch::tensor({1e4f, -1e4f, 3e38f, -88.f, -1e4f, 1e4f, -3e38f, 88.f}).view({1, 2, 4}).set_requires_grad(true);
  const Tensor loss = dice_cross_entropy(x, y, {});
  loss.backward();
  EXPECT_TRUE(torch::isfinite(x.grad()).all().item<bool>());
  const Tensor mild = torch::tensor({1e4f, -1e4f, -1e4f, 1e4f}).view({1, 2, 2});
  EXPECT_NEAR(dice_cross_entropy(mild, torch::tensor({0, 1}).view({1, 2}), {}).item<double>(), 0, 1e-6);
}

TEST(DiceCrossEntropy, NotANumberInTheLogitsReachesTheLoss) {
  Tensor x = torch::zeros({1, 2, 300});
  x[0][1][299] = NAN;
  EXPECT_TRUE(std::isnan(dice_cross_entropy(x, torch::zeros({1, 300}, torch::kLong), {}).item<double>()));
}

TEST(DiceCrossEntropy, IgnoredVoxelsHaveNoInfluenceAndNoGradient) {
  SegmentationLossConfig config;
  config.ignore_label = 255;
  Tensor y = torch::zeros({1, 6}, torch::kByte);
  y[0][1] = 1, y[0][5] = 255;
  Tensor x = torch::randn({1, 2, 6}), z = x.clone();
  z[0][0][5] = 50, z[0][1][5] = -7;
  x.set_requires_grad(true);
  const Tensor loss = dice_cross_entropy(x, y, config);
  EXPECT_TRUE(torch::equal(loss, dice_cross_entropy(z, y, config)));
  loss.backward();
  EXPECT_EQ(x.grad().select(2, 5).abs().max().item<float>(), 0);
}

TEST(DiceCrossEntropy, AllVoxelsIgnoredGivesAFiniteLossWithoutGradient) {
  SegmentationLossConfig config;
  config.ignore_label = 1;
  const Tensor x = torch::randn({1, 3, 5}).set_requires_grad(true);
  const Tensor loss = dice_cross_entropy(x, torch::ones({1, 5}, torch::kLong), config);
  loss.backward();
  EXPECT_TRUE(std::isfinite(loss.item<double>()));
  EXPECT_EQ(x.grad().abs().max().item<float>(), 0);
}

TEST(DiceCrossEntropy, MistakesAreNamed) {
  const Tensor x = torch::zeros({1, 3, 2, 2, 2}), y = torch::zeros({1, 2, 2, 2}, torch::kLong);
  EXPECT_EQ(message_of([&] { dice_cross_entropy(x, y.clone().fill_(3), {}); }),
            "dice_cross_entropy: labels has the value 3 in sample 0, expected 0..2; the network has 3 classes");
  EXPECT_EQ(message_of([&] { dice_cross_entropy(x, y.slice(1, 0, 1), {}); }),
            "dice_cross_entropy: labels must be [B,...] or [B,1,...] on the grid of the logits; logits [1,3,2,2,2], "
            "labels [1,1,2,2]");
  EXPECT_THAT(message_of([&] { dice_cross_entropy(x, y.to(torch::kFloat), {}); }),
              testing::HasSubstr("labels must be integers"));
  SegmentationLossConfig config;
  config.class_weights = {1, 2};
  EXPECT_THAT(message_of([&] { dice_cross_entropy(x, y, config); }),
              testing::HasSubstr("class_weights has 2 entries, expected 3"));
}

TEST(DeepSupervision, WeightsHalveAndLabelsAreTakenAtTheNearestVoxel) {
  torch::manual_seed(5);
  const Tensor y = torch::randint(0, 3, {2, 8, 6, 4});
  const Tensor x0 = torch::randn({2, 3, 8, 6, 4}), x1 = torch::randn({2, 3, 4, 3, 2}),
               x2 = torch::randn({2, 3, 2, 2, 1});
  using torch::indexing::Slice;
  const Tensor y1 = y.index({Slice(), Slice(1, {}, 2), Slice(1, {}, 2), Slice(1, {}, 2)});
  EXPECT_TRUE(torch::equal(nearest_labels(y, {4, 3, 2}), y1));
  const double expected =
      (dice_cross_entropy(x0, y, {}).item<double>() + 0.5 * dice_cross_entropy(x1, y1, {}).item<double>() +
       0.25 * dice_cross_entropy(x2, nearest_labels(y, {2, 2, 1}), {}).item<double>()) /
      1.75;
  EXPECT_NEAR(deep_supervision_loss({x0, x1, x2}, y.unsqueeze(1), {}).item<double>(), expected, 1e-6);
  EXPECT_EQ(nearest_labels(torch::arange(5).view({1, 5}), {3}).equal(torch::tensor({0, 2, 4}).view({1, 3})), true);
}

}  // namespace
}  // namespace fovea::train
