#include "fovea/models/mcat.h"

#include <gtest/gtest.h>

#include "tests/train/message_of.h"

namespace fovea::models {
namespace {

Mcat small() {
  torch::manual_seed(1);
  Mcat model(McatConfig{.omic_sizes = {3, 5}, .patch_features = 7});
  model->eval();
  return model;
}

TEST(Mcat, PatchesThatAreMaskedAreAsIfTheyWereNotThere) {
  auto model = small();
  const auto patches = torch::randn({2, 9, 7}), mask = torch::arange(9).lt(6).expand({2, 9});
  const std::vector<torch::Tensor> genes = {torch::randn({2, 3}), torch::randn({2, 5})};
  const auto masked = model->forward(patches, genes, mask), cut = model->forward(patches.slice(1, 0, 6), genes);
  EXPECT_TRUE(torch::allclose(masked.logits, cut.logits, 1e-5, 1e-6));
  EXPECT_TRUE(torch::allclose(masked.co_attention.slice(2, 0, 6), cut.co_attention, 1e-5, 1e-7));
  EXPECT_EQ(masked.co_attention.slice(2, 6).abs().max().item<float>(), 0);
}

TEST(Mcat, EveryWeightLearnsAndASlideWithoutPatchesStillHasAFiniteRisk) {
  auto model = small();
  const auto mask = torch::tensor({{true, true, true}, {false, false, false}});
  const auto out = model->forward(torch::randn({2, 3, 7}), {torch::randn({2, 3}), torch::randn({2, 5})}, mask);
  EXPECT_TRUE(torch::isfinite(out.risk).all().item<bool>());
  out.logits.square().sum().backward();
  for (const auto& p : model->named_parameters())
    EXPECT_TRUE(torch::isfinite(p.value().grad()).all().item<bool>()) << p.key();
}

TEST(Mcat, GenesOrPatchesThatDoNotFitAreRefusedWithOneLine) {
  auto model = small();
  const auto patches = torch::randn({1, 4, 7}), a = torch::randn({1, 3}), b = torch::randn({1, 5});
  EXPECT_EQ(message_of([&] { model->forward(patches, {a, a}); }), "mcat: group 1 of genes is [1, 3], expected [1,5]");
  EXPECT_EQ(message_of([&] { model->forward(patches, {a}); }), "mcat: 1 groups of genes, expected 2");
  EXPECT_EQ(message_of([&] { model->forward(patches.slice(2, 1), {a, b}); }), "mcat: patches is [1, 4, 6], expected [B,M,7]");
  EXPECT_EQ(message_of([&] { model->forward(patches, {a, b}, torch::ones({1, 3}, torch::kBool)); }),
            "mcat: mask is bool [1, 3], expected bool [1, 4]");
}

}  // namespace
}  // namespace fovea::models
