#include "fovea/nn/msa_attention.h"

#include <gtest/gtest.h>

#include "fovea/core/error.h"

namespace fovea::nn {
namespace {

TEST(MsaAttention, TheMapOfTiedAttentionIsWhatItReadsWith) {
  torch::manual_seed(2);
  torch::NoGradGuard no_grad;
  MsaAttention tied(MsaAttentionOptions(12, 3, Over::kResidues).tied(true));
  const auto x = torch::randn({2, 5, 7, 12});
  const auto map = tied->tied_map(x);
  EXPECT_EQ(map.sizes(), (std::vector<int64_t>{2, 3, 7, 7}));
  const auto v = tied->v_proj(x).unflatten(3, {3, 4});
  const auto read = tied->out_proj(torch::einsum("bhij,brjhc->brihc", {map, v}).flatten(3));
  EXPECT_LE((read - tied(x)).abs().max().item<double>(), 1e-5);
  EXPECT_TRUE(torch::equal(MsaBlock(MsaBlockOptions(12, 3))->residue_map(x).sum(3).round(), torch::ones({2, 3, 7})));
}

TEST(MsaAttention, OnlyTiedAttentionOverResiduesHasOneMap) {
  const auto x = torch::zeros({1, 2, 3, 4});
  EXPECT_THROW(MsaAttention(MsaAttentionOptions(4, 2, Over::kResidues))->tied_map(x), ArgumentError);
  EXPECT_THROW(MsaAttention(MsaAttentionOptions(4, 2, Over::kSequences).tied(true))->tied_map(x), ArgumentError);
  EXPECT_THROW(MsaBlock(MsaBlockOptions(4, 2).first(Over::kSequences))->residue_map(x), ArgumentError);
}

}  // namespace
}  // namespace fovea::nn
