#include "fovea/models/station_fusion.h"

#include <gtest/gtest.h>

#include <limits>

#include "fovea/core/error.h"
#include "fovea/ops/ensure_registered.h"

namespace fovea::models {
namespace {

const double kNan = std::numeric_limits<double>::quiet_NaN();
double largest(const torch::Tensor& t) { return t.abs().max().item<double>(); }

// A network whose layers read something: their last maps begin at 0.
StationFusion network(StationFusionConfig config = {.sources = 3}) {
  torch::manual_seed(5);
  StationFusion net(config);
  torch::NoGradGuard no_grad;
  for (auto& p : net->named_parameters())
    if (p.key().find("out.weight") != std::string::npos || p.key() == "offset" || p.key() == "slope") p.value().copy_(0.3 * torch::randn_like(p.value()));
  return net;
}
Measurements some(int64_t B, int64_t M, int64_t covariates = 0) {
  torch::manual_seed(6);
  return {torch::rand({B, M, 3}), torch::randint(3, {B, M}), torch::randn({B, M}), torch::rand({B, M}), covariates ? torch::randn({B, M, covariates}) : torch::Tensor()};
}
Targets places(int64_t B, int64_t N, int64_t covariates = 0) {
  torch::manual_seed(7);
  return {torch::rand({B, N, 3}), torch::randint(3, {B, N}), covariates ? torch::randn({B, N, covariates}) : torch::Tensor()};
}

TEST(StationFusion, AMissingValueHasNoWeightToTheBit) {
  auto net = network();
  auto m = some(2, 19);
  const auto at = places(2, 5);
  m.value[0][3] = kNan, m.value[1][18] = kNan;
  const auto before = net(m, at);
  m.places[0][3].fill_(kNan), m.error[0][3] = kNan, m.source[0][3] = 1000, m.error[1][18] = 1e30;
  const auto after = net(m, at);
  EXPECT_TRUE(torch::equal(before.mean, after.mean));
  EXPECT_TRUE(torch::equal(before.log_variance, after.log_variance));
  const auto weights = net->weights(m, at);
  EXPECT_EQ(largest(weights.select(0, 0).select(1, 3)), 0);
  EXPECT_GT(weights.select(0, 0).select(1, 4).abs().min().item<double>(), 0);
}

TEST(StationFusion, AMissingValueIsAsGoodAsNoRow) {
  auto net = network();
  auto m = some(1, 19);
  const auto at = places(1, 5);
  m.value[0][18] = kNan;
  const auto with = net(m, at);
  const auto cut = [](const torch::Tensor& t) { return t.slice(1, 0, 18); };
  const auto without = net(Measurements{cut(m.places), cut(m.source), cut(m.value), cut(m.error), {}}, at);
  EXPECT_LE(largest(with.mean - without.mean), 1e-5);
  EXPECT_LE(largest(with.log_variance - without.log_variance), 1e-4);
}

TEST(StationFusion, ItsMeanIsItsWeightsTimesTheValues) {
  auto net = network({.sources = 3, .covariates = 2});
  auto m = some(2, 13, 2);
  const auto at = places(2, 4, 2);
  const auto weights = net->weights(m, at);
  auto none = m;
  none.value = torch::zeros_like(m.value);
  EXPECT_LE(largest(torch::matmul(weights, m.value.unsqueeze(2)).squeeze(2) + net(none, at).mean - net(m, at).mean), 1e-5);
}

TEST(StationFusion, MovesWithPlacesTimesAndLevels) {
  auto net = network();
  auto m = some(1, 17);
  auto at = places(1, 6);
  const auto before = net(m, at);
  m.places = m.places + 3, at.places = at.places + 3, m.value = m.value + 10;
  const auto after = net(m, at);
  EXPECT_LE(largest(after.mean - before.mean - 10), 1e-4);
  EXPECT_LE(largest(after.log_variance - before.log_variance), 1e-3);
}

TEST(StationFusion, DoesNotKnowTheOrderOfStations) {
  auto net = network();
  const auto m = some(1, 17);
  const auto at = places(1, 6);
  const auto order = torch::randperm(17);
  const auto turn = [&](const torch::Tensor& t) { return t.index_select(1, order); };
  EXPECT_LE(largest(net(m, at).mean - net(Measurements{turn(m.places), turn(m.source), turn(m.value), turn(m.error), {}}, at).mean), 1e-5);
}

TEST(StationFusion, SaysTheUsualWhereNothingIsMeasured) {
  auto net = network();
  torch::NoGradGuard no_grad;
  net->usual.fill_(7), net->offset.fill_(0);
  auto m = some(1, 4);
  m.value.fill_(kNan);
  const auto at = places(1, 3);
  const auto nothing = net(m, at);
  EXPECT_LE(largest(nothing.mean - 7), 1e-6);
  EXPECT_TRUE(nothing.log_variance.isfinite().all().item<bool>());
  const auto no_rows = net(Measurements{torch::zeros({1, 0, 3}), torch::zeros({1, 0}, torch::kInt64), torch::zeros({1, 0}), {}, {}}, at);
  EXPECT_LE(largest(no_rows.mean - 7), 1e-6);
}

TEST(StationFusion, TwoStationsAtOnePlaceAreTwoKeys) {
  auto net = network();
  auto m = some(1, 6);
  m.places[0][1] = m.places[0][0], m.source[0][1] = m.source[0][0], m.error[0][1] = m.error[0][0];
  const auto weights = net->weights(m, places(1, 3));
  EXPECT_LE(largest(weights.select(2, 0) - weights.select(2, 1)), 1e-6);
}

TEST(StationFusion, EveryKindOfScoreHasGradientsThatArriveEverywhere) {
  for (const auto score : {nn::PlaceScore::kUniform, nn::PlaceScore::kLaplace, nn::PlaceScore::kDot, nn::PlaceScore::kMultihead}) {
    auto net = network({.sources = 3, .score = score});
    const auto out = net(some(2, 11), places(2, 3));
    (out.mean.square().sum() + out.log_variance.sum()).backward();
    for (const auto& p : net->named_parameters())
      if (p.value().grad().defined()) {
        EXPECT_TRUE(p.value().grad().isfinite().all().item<bool>()) << p.key();
      }
    EXPECT_GT(largest(net->named_parameters()["layers.0.out.weight"].grad()), 0);
    if (score == nn::PlaceScore::kLaplace || score == nn::PlaceScore::kMultihead) {
      EXPECT_GT(largest(net->named_parameters()["layers.0.rate"].grad()), 0);
    }
  }
}

TEST(StationFusion, ALargerErrorTakesWeight) {
  torch::manual_seed(8);
  StationFusion net(StationFusionConfig{.channels = 1, .heads = 1, .layers = 1});
  torch::NoGradGuard no_grad;
  for (auto& p : net->named_parameters())
    if (p.key().find("value.weight") != std::string::npos || p.key().find("out.weight") != std::string::npos || p.key() == "mean.weight" || p.key() == "lift") p.value().fill_(1);
  Measurements m{torch::zeros({1, 2, 3}), torch::zeros({1, 2}, torch::kInt64), torch::randn({1, 2}), torch::tensor({{0.5f, 0.5f}}), {}};
  const Targets at{torch::zeros({1, 1, 3}), torch::zeros({1, 1}, torch::kInt64), {}};
  const auto weight = [&](float error) {
    torch::AutoGradMode on(true);
    m.error[0][1] = error;
    const auto w = net->weights(m, at);
    return (w[0][0][1] / w[0][0][0]).item<double>();
  };
  EXPECT_NEAR(weight(0.5f), 1, 1e-5);
  EXPECT_LT(weight(1), 0.9);
  EXPECT_LT(weight(2), weight(1));
}

TEST(StationFusion, RefusesWhatDoesNotFit) {
  auto net = network();
  const auto m = some(1, 4);
  const auto at = places(1, 2);
  auto other = m;
  other.value = torch::randn({1, 5});
  EXPECT_THROW(net(other, at), ArgumentError);
  other = m, other.source = torch::full({1, 4}, 3, torch::kInt64);
  EXPECT_THROW(net(other, at), ArgumentError);
  other = m, other.places = m.places.clone(), other.places[0][0][0] = kNan;
  EXPECT_THROW(net(other, at), ArgumentError);
  other = m, other.value = m.value.clone(), other.value[0][0] = std::numeric_limits<float>::infinity();
  EXPECT_THROW(net(other, at), ArgumentError);
}

}  // namespace
}  // namespace fovea::models
