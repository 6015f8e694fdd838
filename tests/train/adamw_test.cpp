#include "fovea/train/adamw.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "fovea/core/error.h"

namespace fovea::train {
namespace {

using torch::Tensor;

TEST(AdamW, FollowsTorchsOwnAdamWOverManySteps) {
  torch::manual_seed(1);
  for (const auto type : {torch::kDouble, torch::kFloat}) {
    Tensor a = torch::randn({70000}, type).view({7, 10000}).set_requires_grad(true),
           b = a.detach().clone().set_requires_grad(true);
    AdamW ours({{"w", a}}, {.weight_decay = 0.1});
    torch::optim::AdamW theirs({b}, torch::optim::AdamWOptions(1e-2).weight_decay(0.1));
    for (int i = 0; i < 20; ++i) {
      const Tensor g = torch::randn({7, 10000}, type);
      a.mutable_grad() = g, b.mutable_grad() = 0.5 * g;
      ours.step(1e-2, 0.5), theirs.step();
    }
    EXPECT_LT((a - b).abs().max().item<double>(), type == torch::kDouble ? 1e-13 : 2e-6);
  }
}

TEST(AdamW, NormIsThatOfAllGradientsTogetherAndThreadsDoNotChangeIt) {
  torch::manual_seed(2);
  Tensor a = torch::zeros({200001}).set_requires_grad(true), b = torch::zeros({3, 5}).set_requires_grad(true),
         c = torch::zeros({2}).set_requires_grad(true);
  a.mutable_grad() = torch::randn({200001}), b.mutable_grad() = torch::randn({3, 5});
  AdamW optimizer({{"a", a}, {"b", b}, {"c", c}}, {});
  const double expected = torch::cat({a.grad(), b.grad().flatten()}).to(torch::kDouble).norm().item<double>();
  EXPECT_NEAR(optimizer.gradient_norm(), expected, 1e-12 * expected);
  const int threads = torch::get_num_threads();
  const double norm = optimizer.gradient_norm();
  torch::set_num_threads(1);
  EXPECT_EQ(norm, optimizer.gradient_norm());
  torch::set_num_threads(threads);
  a.mutable_grad().fill_(1e30f);
  EXPECT_TRUE(std::isfinite(optimizer.gradient_norm())) << "large but finite gradients are not bad";
  a.mutable_grad()[200000] = INFINITY;
  EXPECT_FALSE(std::isfinite(optimizer.gradient_norm()));
  a.mutable_grad()[200000] = NAN;
  EXPECT_FALSE(std::isfinite(optimizer.gradient_norm()));
}

TEST(AdamW, BiasesNormsAndPositionTablesDoNotDecay) {
  const Tensor matrix = torch::zeros({2, 2});
  EXPECT_TRUE(is_exempt_from_decay({"norm1.weight", torch::zeros({4})}));
  EXPECT_TRUE(is_exempt_from_decay({"attn.relative_position_bias_table", matrix}));
  EXPECT_TRUE(is_exempt_from_decay({"patch_embedding.pos_embed", matrix}));
  EXPECT_FALSE(is_exempt_from_decay({"attn.qkv.weight", matrix}));
  Tensor w = torch::ones({2, 2}).set_requires_grad(true), bias = torch::ones({2}).set_requires_grad(true);
  AdamW optimizer({{"w", w}, {"bias", bias}}, {.weight_decay = 0.5});
  w.mutable_grad() = torch::zeros({2, 2}), bias.mutable_grad() = torch::zeros({2});
  optimizer.step(0.1);
  EXPECT_FLOAT_EQ(w[0][0].item<float>(), 0.95f);
  EXPECT_FLOAT_EQ(bias[0].item<float>(), 1);
}

TEST(AdamW, GradientInAnotherMemoryOrderIsUsedElementByElement) {
  torch::manual_seed(3);
  Tensor a = torch::randn({4, 3, 2, 2, 2}).contiguous(at::MemoryFormat::ChannelsLast3d).set_requires_grad(true);
  Tensor b = a.detach().contiguous().set_requires_grad(true);
  const Tensor g = torch::randn({4, 3, 2, 2, 2});
  a.mutable_grad() = g, b.mutable_grad() = g;
  AdamW(std::vector<NamedParameter>{{"w", a}}, {}).step(0.1);
  AdamW(std::vector<NamedParameter>{{"w", b}}, {}).step(0.1);
  EXPECT_TRUE(torch::equal(a, b));
}

TEST(AdamW, ParameterWithoutGradientStaysAsItIs) {
  Tensor a = torch::ones({2, 2}).set_requires_grad(true);
  AdamW optimizer({{"a", a}}, {});
  optimizer.step(1);
  EXPECT_TRUE(a.equal(torch::ones({2, 2})));
  EXPECT_EQ(optimizer.gradient_norm(), 0);
}

TEST(AdamW, RefusesAnImpossibleConfig) {
  EXPECT_THROW(AdamWConfig{.beta2 = 1}.validate(), ArgumentError);
  EXPECT_THROW(AdamWConfig{.learning_rate = 0}.validate(), ArgumentError);
}

}  // namespace
}  // namespace fovea::train
