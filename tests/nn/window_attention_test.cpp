#include "fovea/nn/window_attention.h"

#include <gtest/gtest.h>

#include "fovea/nn/swin_block.h"

namespace fovea::nn {
namespace {

using torch::indexing::Slice;

WindowAttentionOptions monai(int64_t dim, int64_t heads, Triple window, Triple shift) {
  return WindowAttentionOptions(dim, heads).window(window).shift(shift).padded_tokens(PaddedTokens::kAttend).region_mask(RegionMask::kAdditive).clipped_bias(
      ClippedBias::kCornerOfIndex);
}

/// Partition, roll, mask and reverse in plain torch, as the papers describe them; the bias by `index` [n,n].
torch::Tensor by_partition(WindowAttention& attention, const torch::Tensor& x, Triple window, Triple shift, const torch::Tensor& index) {
  const auto& o = attention->options();
  const int64_t H = o.heads(), E = o.dim(), n = window[0] * window[1] * window[2];
  Triple padded;
  for (int a = 0; a < 3; ++a) padded[a] = (x.size(a + 1) + window[a] - 1) / window[a] * window[a];
  auto region = torch::zeros({padded[0], padded[1], padded[2]});
  for (int a = 0; a < 3; ++a) {
    if (shift[a] == 0) continue;
    auto axis = torch::zeros({padded[a]});
    axis.slice(0, padded[a] - window[a], padded[a] - shift[a]).fill_(1);
    axis.slice(0, padded[a] - shift[a]).fill_(2);
    std::vector<int64_t> shape(3, 1);
    shape[a] = padded[a];
    region = region * 3 + axis.view(shape);
  }
  const auto partition = [&](const torch::Tensor& t) {  // [B,Z,Y,X,c] -> [B,windows,n,c]
    return t.reshape({t.size(0), padded[0] / window[0], window[0], padded[1] / window[1], window[1], padded[2] / window[2], window[2], t.size(4)})
        .permute({0, 1, 3, 5, 2, 4, 6, 7})
        .reshape({t.size(0), -1, n, t.size(4)});
  };
  auto y = torch::constant_pad_nd(x, {0, 0, 0, padded[2] - x.size(3), 0, padded[1] - x.size(2), 0, padded[0] - x.size(1)});
  y = partition(torch::roll(y, {-shift[0], -shift[1], -shift[2]}, {1, 2, 3}));
  const auto id = partition(region.view({1, padded[0], padded[1], padded[2], 1})).squeeze(-1);  // [1,windows,n]
  const auto mask = (id.unsqueeze(-1) != id.unsqueeze(-2)).to(x.dtype()) * -100.0;
  const auto qkv = attention->qkv(y).view({x.size(0), y.size(1), n, 3, H, E / H}).permute({3, 0, 1, 4, 2, 5});  // 3 B W H n C
  const auto bias = attention->relative_position_bias_table.index_select(0, index.flatten()).view({n, n, H}).permute({2, 0, 1});
  auto scores = torch::matmul(qkv[0], qkv[1].transpose(-1, -2)) / std::sqrt(static_cast<double>(E / H)) + bias + mask.unsqueeze(2);
  auto out = attention->proj(torch::matmul(scores.softmax(-1), qkv[2]).transpose(2, 3).reshape({x.size(0), y.size(1), n, E}));
  out = out.view({x.size(0), padded[0] / window[0], padded[1] / window[1], padded[2] / window[2], window[0], window[1], window[2], E})
            .permute({0, 1, 4, 2, 5, 3, 6, 7})
            .reshape({x.size(0), padded[0], padded[1], padded[2], E});
  out = torch::roll(out, {shift[0], shift[1], shift[2]}, {1, 2, 3});
  return out.slice(1, 0, x.size(1)).slice(2, 0, x.size(2)).slice(3, 0, x.size(3));
}

void spread_parameters(torch::nn::Module& module) {
  torch::NoGradGuard no_grad;
  for (auto& p : module.parameters()) p.copy_(torch::randn_like(p) * 0.3);
}

double difference(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(RelativePositionIndex, CountsDisplacementsFromTheFarCorner) {
  const auto index = relative_position_index_of({2, 3, 4});
  ASSERT_EQ(index.sizes(), (std::vector<int64_t>{24, 24}));
  // Token 0 looks at token 23: displacement (-1, -2, -3) is row 0. The other way round is the last of 3 * 5 * 7.
  EXPECT_EQ(index[0][23].item<int64_t>(), 0);
  EXPECT_EQ(index[23][0].item<int64_t>(), 3 * 5 * 7 - 1);
  EXPECT_EQ(index[5][5].item<int64_t>(), (1 * 5 + 2) * 7 + 3);
}

TEST(WindowAttention, EqualsPartitionRollMaskAndReverseOnAndOffTheWindow) {
  torch::manual_seed(0);
  for (const auto& [grid, shift] : {std::pair<Triple, Triple>{{4, 6, 8}, {0, 0, 0}}, {{4, 6, 8}, {1, 1, 1}}, {{5, 7, 3}, {1, 1, 1}}, {{7, 3, 5}, {0, 1, 0}}}) {
    const Triple window = {2, 3, 2};
    WindowAttention attention(monai(12, 3, window, shift));
    spread_parameters(*attention);
    const auto x = torch::randn({2, grid[0], grid[1], grid[2], 12});
    Triple used = shift;
    for (int a = 0; a < 3; ++a) {
      if (grid[a] <= window[a]) used[a] = 0;
    }
    EXPECT_LT(difference(attention(x), by_partition(attention, x, window, used, attention->relative_position_index)), 1e-5) << torch::IntArrayRef(grid);
  }
}

TEST(WindowAttention, ClippedWindowUsesMonaisCornerOfTheIndexOrTheDisplacementAsAsked) {
  torch::manual_seed(1);
  // A window of 3x3x3 on a grid of 6x2x2: two windows of 3x2x2.
  const Triple clipped = {3, 2, 2}, shift = {1, 0, 0};
  const auto x = torch::randn({1, 6, 2, 2, 8});
  WindowAttention corner(monai(8, 2, {3, 3, 3}, {1, 1, 1}));
  spread_parameters(*corner);
  const int64_t n = 12;
  const auto corner_index = corner->relative_position_index.index({Slice(0, n), Slice(0, n)});
  EXPECT_LT(difference(corner(x), by_partition(corner, x, clipped, shift, corner_index)), 1e-5);

  auto options = monai(8, 2, {3, 3, 3}, {1, 1, 1});
  WindowAttention exact(options.clipped_bias(ClippedBias::kDisplacement));
  spread_parameters(*exact);
  // The displacement (dz, dy, dx) of the clipped window is row ((dz + 2) * 5 + dy + 2) * 5 + dx + 2 of the full table.
  auto index = torch::empty({n, n}, torch::kLong);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) index[i][j] = ((i / 4 - j / 4 + 2) * 5 + i / 2 % 2 - j / 2 % 2 + 2) * 5 + i % 2 - j % 2 + 2;
  }
  EXPECT_LT(difference(exact(x), by_partition(exact, x, clipped, shift, index)), 1e-5);
  EXPECT_FALSE(corner_index.equal(index));
}

TEST(WindowAttention, ExcludedPaddingAndRegionsAreStrangers) {
  torch::manual_seed(2);
  // 3 tokens in windows of 2: the last one is alone with a padded position, so it attends to itself only.
  WindowAttention attention(WindowAttentionOptions(4, 1).window({1, 1, 2}));
  spread_parameters(*attention);
  const auto x = torch::randn({1, 1, 1, 3, 4});
  const auto value = torch::linear(x, attention->qkv->weight.slice(0, 8), attention->qkv->bias.slice(0, 8));
  EXPECT_LT(difference(attention(x).select(3, 2), attention->proj(value).select(3, 2)), 1e-6);
}

TEST(WindowAttention, CapturedRowsReproduceTheForwardPass) {
  torch::manual_seed(3);
  const Triple grid = {5, 4, 7};
  WindowAttention attention(monai(12, 3, {3, 4, 3}, {1, 2, 1}));
  spread_parameters(*attention);
  attention->set_capture(true);
  const auto x = torch::randn({2, grid[0], grid[1], grid[2], 12});
  const auto out = attention(x);
  EXPECT_EQ(attention->captured_grid(), grid);
  const auto queries = torch::tensor({0, 17, 5 * 4 * 7 - 1}, torch::kLong);
  const auto [weights, keys] = attention->rows(queries);
  EXPECT_LT(difference(weights.sum(-1), torch::ones({2, 3, 3})), 1e-5);
  // out = proj(sum of weight * value), with the qkv bias as the value of padded positions.
  const auto value = attention->qkv(x).view({2, -1, 3, 12}).select(2, 2);
  const auto padded = attention->qkv->bias.slice(0, 24).view({1, 1, 12}).expand({2, 1, 12});
  const auto table = torch::cat({value, padded}, 1);
  for (int64_t r = 0; r < 3; ++r) {
    const auto where = torch::where(keys[r] < 0, torch::full_like(keys[r], value.size(1)), keys[r]);
    const auto v = table.index_select(1, where).view({2, -1, 3, 4}).transpose(1, 2);                          // B H n C
    const auto mixed = torch::matmul(weights.select(2, r).unsqueeze(2), v).squeeze(2).reshape({2, 12});  // B E
    EXPECT_LT(difference(attention->proj(mixed), out.view({2, -1, 12}).select(1, queries[r].item<int64_t>())), 1e-5);
  }
  attention->set_capture(false);
  EXPECT_THROW(attention->rows(queries), c10::Error);
}

TEST(WindowAttention, GradientsReachEveryParameter) {
  WindowAttention attention(monai(12, 3, {3, 3, 3}, {1, 1, 1}));
  attention(torch::randn({1, 5, 5, 5, 12})).square().sum().backward();
  for (const auto& p : attention->named_parameters()) {
    ASSERT_TRUE(p.value().grad().defined()) << p.key();
    EXPECT_GT(p.value().grad().abs().sum().item<float>(), 0) << p.key();
  }
}

TEST(WindowAttention, IndexStaysIntegerWhenTheModuleChangesItsDtype) {
  SwinTransformerBlock block(SwinBlockOptions(monai(8, 2, {2, 2, 2}, {1, 1, 1})));
  block->to(torch::kDouble);
  EXPECT_EQ(block->attn->relative_position_index.scalar_type(), torch::kLong);
  EXPECT_EQ(block->attn->qkv->weight.scalar_type(), torch::kDouble);
  EXPECT_EQ(block(torch::randn({1, 4, 4, 4, 8}, torch::kDouble)).scalar_type(), torch::kDouble);
}

TEST(SwinTransformerBlock, DropPathOfTrainingKeepsTheMeanAndEvaluationKeepsAll) {
  torch::manual_seed(4);
  DropPath drop(0.25);
  const auto x = torch::ones({4000, 1, 1});
  EXPECT_NEAR(drop(x).mean().item<float>(), 1, 0.05);
  EXPECT_NEAR((drop(x) == 0).to(torch::kFloat).mean().item<float>(), 0.25, 0.03);
  drop->eval();
  EXPECT_TRUE(drop(x).equal(x));
}

}  // namespace
}  // namespace fovea::nn
