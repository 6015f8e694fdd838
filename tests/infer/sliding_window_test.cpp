#include "fovea/infer/sliding_window.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "fovea/core/error.h"

namespace fovea::infer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// A network whose answer depends on neighbours, channel and place in the window, so that every mistake shows.
WindowNetwork small_network(int64_t channels, int64_t classes, uint64_t seed = 3) {
  torch::manual_seed(seed);
  const auto weight = torch::randn({classes, channels, 3, 3, 3});
  return [weight](const torch::Tensor& x) {
    return torch::tanh(torch::conv3d(x, weight, {}, 1, 1)) + torch::linspace(0, 0.3, x.size(4)) + torch::linspace(-0.2, 0, x.size(2)).view({-1, 1, 1});
  };
}

torch::Tensor random_image(int64_t channels, const Triple& shape) {
  torch::manual_seed(channels + shape[0] + shape[1] + shape[2]);
  return torch::randn({channels, shape[0], shape[1], shape[2]});
}

/// The definition in one breath: pad, sum over all windows, divide, crop.
torch::Tensor blended(const torch::Tensor& image, const WindowNetwork& network, const SlidingWindowConfig& config) {
  const Triple shape{image.size(1), image.size(2), image.size(3)}, before = padding_before(shape, config), &p = config.patch_size;
  std::vector<int64_t> pad;
  for (int a = 2; a >= 0; --a) pad.insert(pad.end(), {before[a], std::max<int64_t>(p[a] - shape[a], 0) - before[a]});
  const auto padded = torch::constant_pad_nd(image, pad).unsqueeze(0);
  const auto starts = window_starts(shape, config);
  const auto weights = window_weights(config);
  torch::Tensor sum, weight = torch::zeros_like(padded[0][0]);
  const auto at = [&](torch::Tensor t, int64_t z, int64_t y, int64_t x) {
    const int64_t d = t.dim() - 3;
    return t.narrow(d, z, p[0]).narrow(d + 1, y, p[1]).narrow(d + 2, x, p[2]);
  };
  for (int64_t z : starts[0])
    for (int64_t y : starts[1])
      for (int64_t x : starts[2]) {
        const auto window = at(padded, z, y, x);
        torch::Tensor logits;
        int n = 0;
        for (int subset = 0; subset < 8; ++subset) {
          std::vector<int64_t> dims;
          bool allowed = true;
          for (int a = 0; a < 3; ++a)
            if (subset >> a & 1) dims.push_back(a + 2), allowed &= std::count(config.mirror_axes.begin(), config.mirror_axes.end(), a) > 0;
          if (!allowed) continue;
          const auto answer = network(window.flip(dims).contiguous()).flip(dims).to(torch::kDouble);
          logits = n++ ? logits + answer : answer;
        }
        logits = logits[0] / n;
        if (!sum.defined()) sum = torch::zeros({logits.size(0), padded.size(2), padded.size(3), padded.size(4)}, torch::kDouble);
        at(sum, z, y, x) += logits * weights;
        at(weight, z, y, x) += weights;
      }
  return (sum / weight).narrow(1, before[0], shape[0]).narrow(2, before[1], shape[1]).narrow(3, before[2], shape[2]).to(torch::kFloat);
}

TEST(WindowStarts, OfNnunetAreSpreadEvenlyAndRoundedHalfToEven) {
  SlidingWindowConfig c = nnunet_windows({64, 64, 64});
  EXPECT_THAT(window_starts({110, 64, 65}, c)[0], ElementsAre(0, 23, 46));
  EXPECT_THAT(window_starts({110, 64, 65}, c)[1], ElementsAre(0));
  EXPECT_THAT(window_starts({110, 64, 65}, c)[2], ElementsAre(0, 1));
  c.patch_size = {10, 10, 10};
  EXPECT_THAT(window_starts({15, 19, 3}, c)[0], ElementsAre(0, 5));
  EXPECT_THAT(window_starts({15, 19, 3}, c)[1], ElementsAre(0, 4, 9));  // 4.5 rounds to 4
  EXPECT_THAT(window_starts({15, 19, 3}, c)[2], ElementsAre(0));
}

TEST(WindowStarts, OfMonaiStepByTheIntervalAndEndWithTheImage) {
  SlidingWindowConfig c = monai_windows({8, 8, 8});
  EXPECT_THAT(window_starts({20, 8, 9}, c)[0], ElementsAre(0, 6, 12));
  EXPECT_THAT(window_starts({20, 8, 9}, c)[1], ElementsAre(0));
  EXPECT_THAT(window_starts({20, 8, 9}, c)[2], ElementsAre(0, 1));
  c.overlap = 0.99;  // an interval of 0 is 1
  EXPECT_EQ(window_starts({20, 8, 9}, c)[0].size(), 13u);
}

TEST(WindowWeights, OfNnunetPeakAtThePatchHalfWithTenAndAreNeverZero) {
  const auto w = window_weights(nnunet_windows({8, 16, 33}));
  EXPECT_EQ(w[4][8][16].item<float>(), 10);
  EXPECT_GT(w.min().item<float>(), 0);
  EXPECT_NEAR(w[4][8][16 + 4].item<float>(), 10 * std::exp(-0.5 * 16 / (33 * 33 / 64.0)), 5e-3);  // float16 keeps 11 bits
  EXPECT_TRUE(torch::equal(w.to(torch::kHalf).to(torch::kFloat), w));
}

TEST(WindowWeights, OfMonaiAreSymmetricAndNotBelowAThousandth) {
  SlidingWindowConfig c = monai_windows({8, 16, 33});
  EXPECT_TRUE(torch::equal(window_weights(c), torch::ones({8, 16, 33})));
  c.blending = Blending::kGaussian;
  const auto w = window_weights(c);
  EXPECT_TRUE(torch::equal(w.flip({0, 1, 2}), w));
  EXPECT_EQ(w.min().item<float>(), 1e-3f);
}

struct Problem {
  Triple shape, patch;
  WindowRule rule;
  Blending blending;
  double overlap;
  std::vector<int> mirror_axes;
  Stripes stripes;
  int64_t classes;
};

struct Sliding : testing::TestWithParam<Problem> {
  SlidingWindowConfig config() const {
    const Problem& p = GetParam();
    return {p.rule, p.patch, p.overlap, p.blending, 0.125, p.mirror_axes, 1};
  }
};

TEST_P(Sliding, ScoresEqualTheDefinition) {
  const auto image = random_image(2, GetParam().shape);
  const auto network = small_network(2, GetParam().classes);
  const auto scores = predict_scores(image, network, config());
  EXPECT_TRUE(torch::allclose(scores, blended(image, network, config()), 1e-5, 1e-5));
}

TEST_P(Sliding, StreamedLabelsAreTheArgMaxOfTheDenseScoresBitForBit) {
  const auto image = random_image(2, GetParam().shape);
  const auto network = small_network(2, GetParam().classes);
  const auto dense = std::get<1>(predict_scores(image, network, config()).max(0));
  LabelOptions options;
  options.stripes = GetParam().stripes;
  const auto labels = predict_labels(image, network, config(), options);
  ASSERT_EQ(labels.scalar_type(), GetParam().classes <= 256 ? torch::kByte : torch::kShort);
  EXPECT_TRUE(torch::equal(labels.to(torch::kLong), dense));
}

TEST_P(Sliding, StreamedScoresAreTheDenseOnesBitForBitAndEachVoxelComesOnce) {
  const auto image = random_image(2, GetParam().shape);
  const auto network = small_network(2, GetParam().classes);
  const auto dense = predict_scores(image, network, config());
  auto seen = torch::zeros_like(dense[0]);
  int64_t windows = 0, announced = 0;
  stream_scores(image, network, config(), GetParam().stripes, [&](const Triple& at, const torch::Tensor& s) {
    const auto part = [&](torch::Tensor t, int64_t first) {
      return t.narrow(first, at[0], s.size(1)).narrow(first + 1, at[1], s.size(2)).narrow(first + 2, at[2], s.size(3));
    };
    EXPECT_TRUE(torch::equal(part(dense, 1), s));
    part(seen, 0) += 1;
  }, [&](int64_t done, int64_t total) { windows = done, announced = total; });
  EXPECT_TRUE(torch::equal(seen, torch::ones_like(seen)));
  EXPECT_EQ(windows, announced);
  EXPECT_EQ(windows, window_count(GetParam().shape, config(), GetParam().stripes));
}

constexpr auto kN = WindowRule::kNnunet;
constexpr auto kM = WindowRule::kMonai;
constexpr auto kG = Blending::kGaussian;
constexpr auto kC = Blending::kConstant;
INSTANTIATE_TEST_SUITE_P(Problems, Sliding, testing::Values(
    Problem{{8, 8, 8}, {8, 8, 8}, kN, kG, 0.5, {0, 1, 2}, {1, 1}, 3},
    Problem{{17, 13, 19}, {8, 6, 7}, kN, kG, 0.5, {0, 1, 2}, {2, 3}, 5},
    Problem{{9, 5, 6}, {5, 4, 4}, kN, kG, 0.5, {2}, {5, 6}, 2},  // stripes of one voxel
    Problem{{23, 9, 10}, {5, 9, 4}, kN, kC, 0.3, {}, {3, 2}, 4},
    Problem{{17, 13, 19}, {8, 6, 7}, kM, kC, 0.25, {}, {3, 2}, 3},
    Problem{{16, 21, 11}, {9, 8, 10}, kM, kG, 0.6, {1, 0}, {4, 1}, 3},
    Problem{{5, 20, 3}, {8, 8, 8}, kM, kG, 0.5, {}, {2, 2}, 3},   // padded along z and x
    Problem{{5, 4, 3}, {8, 7, 6}, kN, kG, 0.5, {0}, {2, 2}, 3},   // padded everywhere
    Problem{{9, 8, 7}, {8, 4, 4}, kN, kG, 0.95, {}, {2, 1}, 2},   // steps under a voxel
    Problem{{1, 1, 9}, {1, 1, 4}, kM, kC, 0, {}, {1, 2}, 1},
    Problem{{6, 9, 8}, {4, 4, 4}, kN, kG, 0.5, {}, {2, 2}, 300}));  // i16 labels

TEST(PredictWindow, LeavesTheMemoryOfANetworkThatReturnsItsInputAlone) {
  SlidingWindowConfig c = nnunet_windows({4, 4, 4});
  const auto window = torch::randn({1, 2, 4, 4, 4}), copy = window.clone();
  const auto answer = predict_window(window, [](const torch::Tensor& x) { return x; }, c);
  EXPECT_TRUE(torch::equal(window, copy));
  EXPECT_TRUE(torch::allclose(answer, window));
}

TEST(PredictLabels, TakeTheFirstOfEqualLogits) {
  SlidingWindowConfig c = nnunet_windows({4, 4, 4}, {});
  const auto labels = predict_labels(torch::zeros({1, 6, 6, 6}), [](const torch::Tensor& x) {
    return torch::tensor({-1.f, 2.f, 2.f}).view({1, 3, 1, 1, 1}).expand({x.size(0), 3, 4, 4, 4});
  }, c);
  EXPECT_TRUE(torch::equal(labels, torch::ones({6, 6, 6}, torch::kByte)));
}

TEST(PredictLabels, HandTheScoresOfEachSlabToTheSink) {
  SlidingWindowConfig c = nnunet_windows({4, 4, 4}, {});
  const auto image = random_image(1, {9, 6, 5});
  const auto network = small_network(1, 3);
  auto kept = torch::zeros({3, 9, 6, 5}, torch::kHalf);
  LabelOptions options;
  options.score_sink = [&](const Triple& at, const torch::Tensor& s) { kept.narrow(1, at[0], s.size(1)).copy_(probabilities(s, DType::kF16)); };
  predict_labels(image, network, c, options);
  EXPECT_TRUE(torch::equal(kept, torch::softmax(predict_scores(image, network, c), 0).to(torch::kHalf)));
}

TEST(PredictLabels, NameTheRowWhereTheNetworkGaveNan) {
  SlidingWindowConfig c = nnunet_windows({4, 4, 4}, {});
  auto image = torch::zeros({1, 8, 4, 4});
  image[0][6][2][1] = std::nan("");
  try {
    predict_labels(image, [](const torch::Tensor& x) { return torch::cat({x, x}, 1); }, c);
    FAIL();
  } catch (const ArgumentError& e) {
    EXPECT_THAT(e.what(), HasSubstr("the network gave nan in the row of voxels z 6, y 2"));
  }
}

TEST(PredictLabels, RefuseANetworkThatChangesTheSize) {
  SlidingWindowConfig c = nnunet_windows({4, 4, 4}, {});
  try {
    predict_labels(torch::zeros({1, 8, 4, 4}), [](const torch::Tensor& x) { return x.narrow(4, 0, 3); }, c);
    FAIL();
  } catch (const ArgumentError& e) {
    EXPECT_THAT(e.what(), HasSubstr("the network gave logits [1, 1, 4, 4, 3] for windows [1, 1, 4, 4, 4]"));
  }
  EXPECT_THROW(predict_labels(torch::zeros({8, 4, 4}), [](const torch::Tensor& x) { return x; }, c), ArgumentError);
}

TEST(PredictLabels, GiveTheSameForABatchAndForIntegerVoxels) {
  SlidingWindowConfig c = nnunet_windows({5, 4, 6}, {1});
  const auto image = (random_image(1, {11, 9, 13}) * 100).to(torch::kShort);
  const WindowNetwork network = [](const torch::Tensor& x) { return torch::cat({x, x.square() / 50, 20 - x}, 1); };
  const auto one = predict_labels(image, network, c);
  EXPECT_GT(one.max().item<int>(), one.min().item<int>());
  c.batch = 4;
  EXPECT_TRUE(torch::equal(predict_labels(image, network, c), one));
  EXPECT_TRUE(torch::equal(predict_labels(image.to(torch::kFloat), network, c), one));
}

TEST(SlidingWindowConfig, SaysWhatIsWrongWithAField) {
  SlidingWindowConfig c;
  c.overlap = 1;
  EXPECT_THROW(c.validate(), ArgumentError);
  c = {}, c.patch_size = {8, 0, 8};
  try {
    c.validate();
    FAIL();
  } catch (const ArgumentError& e) {
    EXPECT_STREQ(e.what(), "sliding window: patch_size 8x0x8, expected at least 1 voxel an axis");
  }
  c = {}, c.mirror_axes = {1, 1};
  EXPECT_THROW(c.validate(), ArgumentError);
  c.mirror_axes = {3};
  EXPECT_THROW(c.validate(), ArgumentError);
}

}  // namespace
}  // namespace fovea::infer
