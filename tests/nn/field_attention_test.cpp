#include "fovea/nn/field_attention.h"

#include <gtest/gtest.h>

#include "fovea/core/error.h"
#include "fovea/nn/position_attention.h"
#include "fovea/ops/ensure_registered.h"

namespace fovea::nn {
namespace {

torch::Tensor line(int64_t n) { return ((torch::arange(n, torch::kFloat32) + 0.5) / double(n)).unsqueeze(1); }
double largest(const torch::Tensor& t) { return t.abs().max().item<double>(); }

class FieldAttentionKinds : public testing::TestWithParam<FieldAttentionKind> {};
INSTANTIATE_TEST_SUITE_P(All, FieldAttentionKinds, testing::Values(FieldAttentionKind::kSoftmax, FieldAttentionKind::kFourier, FieldAttentionKind::kGalerkin));

TEST_P(FieldAttentionKinds, ReadsPointsByTheirPlacesNotTheirOrder) {
  torch::manual_seed(1);
  FieldAttention layer(FieldAttentionOptions(24, 3).axes(2).kind(GetParam()));
  const auto x = torch::randn({2, 17, 24}), at = torch::rand({17, 2});
  const auto order = torch::randperm(17);
  EXPECT_LE(largest(layer(x, at).index_select(1, order) - layer(x.index_select(1, order), at.index_select(0, order))), 1e-5);
}

TEST_P(FieldAttentionKinds, ItsMapsTimesTheValuesAreItsAnswer) {
  torch::manual_seed(2);
  FieldAttention layer(FieldAttentionOptions(16, 2).kind(GetParam()));
  const auto x = torch::randn({3, 11, 16}), at = line(11);
  auto values = layer->to_v(x).unflatten(2, {2, 8}).transpose(1, 2);
  if (GetParam() == FieldAttentionKind::kGalerkin) values = torch::layer_norm(values, {8});
  const auto read = torch::matmul(layer->maps(x, at), values).transpose(1, 2).flatten(2);
  EXPECT_LE(largest(layer(x, at) - layer->to_out(read)), 1e-5);
}

TEST_P(FieldAttentionKinds, PeriodicPositionsFeelNoWholeTurn) {
  torch::manual_seed(3);
  FieldAttention layer(FieldAttentionOptions(16, 2).kind(GetParam()).periodic(true));
  const auto x = torch::randn({1, 9, 16}), at = line(9);
  auto turned = at.clone();
  turned.slice(0, 0, 4) += 1;
  EXPECT_LE(largest(layer(x, at) - layer(x, turned)), 1e-4);
  EXPECT_LE(largest(layer(x, at) - layer(x, at + 0.25)), 1e-4) << "a shift of all places is not seen either";
}

TEST(FieldAttention, WithoutSoftmaxFinerGridsGiveTheSameIntegral) {
  torch::manual_seed(4);
  FieldAttention layer(FieldAttentionOptions(16, 2).periodic(true));
  const auto field = [](const torch::Tensor& at) {
    std::vector<torch::Tensor> waves;
    for (int64_t c = 0; c < 16; ++c) waves.push_back(torch::cos(2 * M_PI * (at.squeeze(1) * double(c % 3) + 0.1 * double(c))));
    return torch::stack(waves, 1).unsqueeze(0);
  };
  const auto coarse = torch::arange(32, torch::kFloat32).unsqueeze(1) / 32, fine = torch::arange(128, torch::kFloat32).unsqueeze(1) / 128;
  EXPECT_LE(largest(layer(field(coarse), coarse) - layer(field(fine), fine).slice(1, 0, 128, 4)), 2e-3);
}

TEST(FieldAttention, RefusesWhatDoesNotFit) {
  EXPECT_THROW(FieldAttention(FieldAttentionOptions(10, 3)), ArgumentError);
  EXPECT_THROW(FieldAttention(FieldAttentionOptions(6, 2).axes(2)), ArgumentError);
  FieldAttention layer(FieldAttentionOptions(8, 2));
  EXPECT_THROW(layer(torch::zeros({1, 5, 8}), line(4)), ArgumentError);
  EXPECT_THROW(layer(torch::zeros({1, 5, 9}), line(5)), ArgumentError);
}

TEST(PositionAttention, IsALinearOperatorWithItsKernel) {
  torch::manual_seed(5);
  PositionAttention layer(PositionAttentionOptions(1, 2, 8));
  const auto x = line(13), y = line(7), f = torch::randn({3, 7});
  EXPECT_LE(largest(layer(f, x, y) - torch::matmul(f, layer->kernel(x, y).t()) / 7), 1e-6);
  EXPECT_EQ(layer->kernel(x, y).sizes(), (std::vector<int64_t>{13, 7}));
}

TEST(PositionAttention, IsSymmetricOnlyWhereAsked) {
  torch::manual_seed(6);
  const auto x = line(9);
  PositionAttention tied(PositionAttentionOptions(1, 2, 8).symmetric(true)), open(PositionAttentionOptions(1, 2, 8));
  EXPECT_LE(largest(tied->kernel(x, x) - tied->kernel(x, x).t()), 1e-5);
  EXPECT_GE(largest(open->kernel(x, x) - open->kernel(x, x).t()), 1e-2);
}

TEST(PositionAttention, OnPeriodicFieldsNoWholeTurnIsFelt) {
  torch::manual_seed(7);
  const auto x = line(9);
  PositionAttention periodic(PositionAttentionOptions(1, 2, 8).periodic(true)), open(PositionAttentionOptions(1, 2, 8));
  EXPECT_LE(largest(periodic->kernel(x + 1, x) - periodic->kernel(x, x)), 1e-5);
  EXPECT_GE(largest(open->kernel(x + 1, x) - open->kernel(x, x)), 1e-3);
  EXPECT_THROW(PositionAttention(PositionAttentionOptions(1, 2, 8).periodic(true).waves(0)), ArgumentError);
}

}  // namespace
}  // namespace fovea::nn
