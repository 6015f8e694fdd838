#include "fovea/nn/class_token.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "fovea/core/error.h"

namespace fovea::nn {
namespace {

struct Reader {
  ClassToken token{nullptr};
  torch::Tensor cells, radiomics;

  Reader() {
    torch::manual_seed(1);
    token = ClassToken(ClassTokenOptions(8, 2, 2));
    cells = torch::randn({3, 5, 8}), radiomics = torch::randn({3, 1, 8});
  }
};

TEST(ClassToken, RowsAreTheSoftmaxOfItsOwnScoresWithTheShareOfEachSource) {
  Reader r;
  torch::NoGradGuard no_grad;
  // Large weights, so that the rows are far from flat.
  for (auto& p : r.token->blocks[0]->attn->parameters()) p.mul_(3);
  r.token->set_capture(true);
  r.token->forward({r.cells, r.radiomics});
  const auto row = r.token->rows();
  EXPECT_EQ(row.sizes(), (std::vector<int64_t>{1, 3, 2, 7}));
  auto attn = r.token->blocks[0]->attn;
  const auto x = torch::cat(
      {r.token->class_token.expand({3, 1, 8}), r.cells + r.token->kind[0], r.radiomics + r.token->kind[1]}, 1);
  const auto h = r.token->blocks[0]->norm1(x);
  const auto heads = [](const torch::Tensor& t) { return t.view({3, -1, 2, 4}).transpose(1, 2); };
  auto scores = torch::matmul(heads(attn->q_proj(h)).slice(2, 0, 1), heads(attn->k_proj(h)).transpose(2, 3)) / 2;
  scores = scores.select(2, 0) - torch::tensor({1., 5., 5., 5., 5., 5., 1.}).log().to(torch::kFloat);
  EXPECT_LT((row[0] - scores.softmax(-1)).abs().max().item<float>(), 1e-6);
  const auto shares = r.token->shares();
  EXPECT_LT((shares.sum(1) - 1).abs().max().item<float>(), 1e-6);
  EXPECT_LT((shares.select(1, 1) - row[0].mean(1).slice(1, 1, 6).sum(1)).abs().max().item<float>(), 1e-6);
}

TEST(ClassToken, GivesEverySourceTheSameShareBeforeItHasLearnt) {
  Reader r;
  torch::NoGradGuard no_grad;
  r.token->blocks[0]->attn->q_proj->weight.zero_(), r.token->blocks[0]->attn->q_proj->bias.zero_();
  r.token->set_capture(true);
  r.token->forward({r.cells, r.radiomics});
  EXPECT_LT((r.token->shares() - 1.0 / 3).abs().max().item<float>(), 1e-6);
}

TEST(ClassToken, DoesNotReadASourceThatIsMissing) {
  Reader r;
  torch::NoGradGuard no_grad;
  const auto present = torch::tensor({true, false, true});
  r.token->set_capture(true);
  const auto a = r.token->forward({r.cells, r.radiomics}, {{}, present});
  EXPECT_EQ(r.token->shares()[1][2].item<float>(), 0);
  EXPECT_GT(r.token->shares()[0][2].item<float>(), 0);
  auto other = r.radiomics.clone();
  other[1].fill_(std::nan(""));
  EXPECT_TRUE(torch::equal(a, r.token->forward({r.cells, other}, {{}, present})));
  EXPECT_FALSE(torch::equal(a, r.token->forward({r.cells, r.radiomics})));
  const auto none = torch::zeros({3}, torch::kBool);
  EXPECT_TRUE(torch::isfinite(r.token->forward({r.cells, r.radiomics}, {none, none})).all().item<bool>());
}

TEST(ClassToken, DoesNotDependOnTheOrderOfASourcesTokens) {
  Reader r;
  torch::NoGradGuard no_grad;
  const auto a = r.token->forward({r.cells, r.radiomics}), b = r.token->forward({r.cells.flip(1), r.radiomics});
  EXPECT_LT((a - b).abs().max().item<float>(), 1e-5);
}

TEST(ClassToken, RefusesOtherSourcesAndWidthsInOneLine) {
  Reader r;
  const auto error_of = [&](const std::vector<torch::Tensor>& sources) -> std::string {
    try {
      r.token->forward(sources);
    } catch (const ArgumentError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(error_of({r.cells}), testing::HasSubstr("1 sources and 0 marks, expected 2 sources"));
  EXPECT_THAT(error_of({r.cells, torch::zeros({3, 1, 4})}), testing::HasSubstr("source 1 is [3, 1, 4]"));
  EXPECT_THAT(error_of({r.cells, torch::zeros({3, 0, 8})}), testing::HasSubstr("source 1 is [3, 0, 8]"));
}

}  // namespace
}  // namespace fovea::nn
