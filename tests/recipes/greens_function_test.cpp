#include "fovea/recipes/greens_function.h"

#include <gtest/gtest.h>

#include "fovea/models/fourier_operator.h"
#include "fovea/models/operator_transformer.h"
#include "fovea/core/error.h"

namespace fovea::recipes {
namespace {

TEST(GreensFunction, IsInTheLearnedKernelAfterAFewHundredSteps) {
  OperatorOptions options;
  options.pde.points = 24, options.forcing_length = 0.1, options.steps = 500;
  const auto score = learn_green(OperatorNetwork::kPosition, options, 3);
  EXPECT_LE(score.relative_l2, 0.1);
  EXPECT_GE(score.effective, 0.95);
  EXPECT_LE(score.at_points[1], 0.15) << "on four times the points";
  EXPECT_EQ(score.kernel.sizes(), (std::vector<int64_t>{24, 24}));
}

TEST(GreensFunction, CannotBeSymmetricWhereTheEquationIsNot) {
  OperatorOptions options;
  options.pde.points = 24, options.pde.equation = data::LinearEquation::kAdvectionDiffusion, options.pde.advection = 20, options.forcing_length = 0.1, options.steps = 400;
  EXPECT_LE(learn_green(OperatorNetwork::kSymmetricPosition, options, 3).effective, 0.6);
}

TEST(GreensFunction, IsTheSameForTheSameSeed) {
  OperatorOptions options;
  options.pde.points = 16, options.steps = 20;
  const auto a = learn_green(OperatorNetwork::kFourier, options, 9), b = learn_green(OperatorNetwork::kFourier, options, 9);
  EXPECT_EQ(a.relative_l2, b.relative_l2);
  EXPECT_TRUE(torch::equal(a.kernel, b.kernel));
}

TEST(FourierOperator, GivesTheSameOnAFinerGrid) {
  torch::manual_seed(1);
  models::FourierOperator net(models::FourierOperatorConfig{.width = 8, .modes = 5, .layers = 1});
  const auto at = [](int64_t n) { return (torch::arange(n, torch::kFloat32) / double(n)).unsqueeze(1); };
  const auto field = [&](int64_t n) { return torch::cos(2 * M_PI * at(n)).unsqueeze(0); };
  // The position is a ramp whose waves above the modes are cut off; the field itself has one wave.
  EXPECT_LE((net(field(64), at(64)) - net(field(256), at(256)).slice(1, 0, 256, 4)).abs().max().item<double>(), 0.02);
  EXPECT_THROW(net(field(9), at(9)), ArgumentError);
}

TEST(OperatorTransformer, ShiftsItsAnswerWithAPeriodicField) {
  torch::manual_seed(2);
  models::OperatorTransformerConfig config;
  config.periodic = true, config.reads_position = false, config.layers = 2;
  models::OperatorTransformer net(config);
  const auto at = (torch::arange(20, torch::kFloat32) / 20).unsqueeze(1), f = torch::randn({2, 20, 1});
  EXPECT_LE((net(f.roll(7, 1), at) - net(f, at).roll(7, 1)).abs().max().item<double>(), 1e-5);
}

}  // namespace
}  // namespace fovea::recipes
