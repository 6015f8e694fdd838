#include "fovea/models/factored_attention.h"

#include <gtest/gtest.h>

#include "fovea/core/error.h"

namespace fovea::models {
namespace {

TEST(FactoredAttention, LogitsAreTheSumOverTheOtherColumnsAsTheEquationSays) {
  torch::manual_seed(1);
  FactoredAttention net(FactoredAttentionConfig{.columns = 5, .states = 4, .heads = 3, .channels = 2});
  net->to(torch::kFloat64);
  torch::NoGradGuard no_grad;
  net->value.normal_(), net->bias.normal_();
  const auto x = torch::randint(4, {2, 5}, torch::kInt64);
  const auto got = net(x);
  for (int64_t b = 0; b < 2; ++b)
    for (int64_t i = 0; i < 5; ++i)
      for (int64_t a = 0; a < 4; ++a) {
        double expected = net->bias[i][a].item<double>();
        for (int64_t h = 0; h < 3; ++h) {
          const auto weights = [&](int64_t row) {
            auto scores = torch::mv(net->key[h], net->query[h][row]) / std::sqrt(2.0);
            scores[row] = -1e300;
            return torch::softmax(scores, 0);
          };
          for (int64_t j = 0; j < 5; ++j)
            if (j != i)
              expected += (weights(i)[j] * net->value[h][a][x[b][j]] + weights(j)[i] * net->value[h][x[b][j]][a]).item<double>() / 2;
        }
        EXPECT_NEAR(got[b][i][a].item<double>(), expected, 1e-12);
      }
}

TEST(FactoredAttention, NoColumnSeesItself) {
  torch::manual_seed(2);
  FactoredAttention net(FactoredAttentionConfig{.columns = 6, .states = 3, .heads = 2, .channels = 4});
  auto x = torch::randint(3, {1, 6}, torch::kInt64);
  const auto before = net(x)[0][2].clone();
  x[0][2] = (x[0][2] + 1) % 3;
  EXPECT_TRUE(torch::equal(net(x)[0][2], before));
  EXPECT_EQ(net->strengths().diagonal().abs().max().item<double>(), 0);
}

TEST(FactoredAttention, ItsLossFallsOnCoupledColumnsAndItsStrengthsFindThem) {
  torch::manual_seed(3);
  FactoredAttention net(FactoredAttentionConfig{.columns = 8, .states = 4, .heads = 4, .channels = 4});
  auto x = torch::randint(4, {512, 8}, torch::kInt64);
  x.select(1, 5).copy_(x.select(1, 1));
  x.select(1, 7).copy_(3 - x.select(1, 2));
  torch::optim::Adam optimizer(net->parameters(), 0.05);
  const double first = net->loss(x, 1e-3).item<double>();
  for (int step = 0; step < 150; ++step) {
    optimizer.zero_grad();
    net->loss(x, 1e-3).backward();
    optimizer.step();
  }
  EXPECT_LE(net->loss(x, 1e-3).item<double>(), first - 3) << "nats of two columns told by two others, both ways, are 5.5";
  const auto strengths = net->strengths();
  const double weaker = std::min(strengths[1][5].item<double>(), strengths[2][7].item<double>());
  auto others = strengths.clone();
  for (const auto& [i, j] : {std::pair{1, 5}, {2, 7}}) others[i][j] = others[j][i] = 0;
  EXPECT_GT(weaker, 2 * others.max().item<double>());
}

TEST(FactoredAttention, WeightsCountSequencesAsOftenAsTheySay) {
  torch::manual_seed(4);
  FactoredAttention net(FactoredAttentionConfig{.columns = 4, .states = 3, .heads = 2, .channels = 2});
  const auto x = torch::randint(3, {2, 4}, torch::kInt64);
  const auto twice = torch::cat({x, x.slice(0, 1)});
  EXPECT_NEAR(net->loss(x, 0, torch::tensor({1.0f, 2.0f})).item<double>(), net->loss(twice, 0).item<double>(), 1e-5);
  EXPECT_THROW(net(torch::zeros({1, 5}, torch::kInt64)), ArgumentError);
}

}  // namespace
}  // namespace fovea::models
