#include "fovea/data/potts.h"

#include <gtest/gtest.h>

#include <cmath>

#include "fovea/core/error.h"

namespace fovea::data {
namespace {

TEST(Potts, SamplesHaveTheFrequenciesOfTheModel) {
  // Two columns of two states: all four probabilities by hand.
  auto couplings = torch::zeros({2, 2, 2, 2});
  couplings[0][0][1][0] = couplings[1][0][0][0] = 1.5;
  auto fields = torch::zeros({2, 2});
  fields[0][1] = 0.7;
  const auto x = sample_potts(couplings, fields, 40000, 8, at::detail::createCPUGenerator(2));
  const double weight[4] = {std::exp(1.5), 1, std::exp(0.7), std::exp(0.7)};  // of x0 x1 = 00, 01, 10, 11
  const double sum = weight[0] + weight[1] + weight[2] + weight[3];
  for (int64_t state = 0; state < 4; ++state)
    EXPECT_NEAR((x.select(1, 0) * 2 + x.select(1, 1) == state).to(torch::kFloat64).mean().item<double>(), weight[state] / sum, 0.012) << state;
}

TEST(Potts, IsTheSameForTheSameSeedAndRefusesOtherShapes) {
  const auto couplings = torch::zeros({3, 4, 3, 4}), fields = torch::zeros({3, 4});
  EXPECT_TRUE(torch::equal(sample_potts(couplings, fields, 5, 2, at::detail::createCPUGenerator(1)), sample_potts(couplings, fields, 5, 2, at::detail::createCPUGenerator(1))));
  EXPECT_THROW(sample_potts(torch::zeros({3, 4, 3, 5}), fields, 5, 2, at::detail::createCPUGenerator(1)), ArgumentError);
}

}  // namespace
}  // namespace fovea::data
