#include "fovea/ops/window_attention.h"

#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <array>
#include <limits>
#include <sstream>

#include "fovea/ops/attention.h"
#include "tests/ops/bfloat16_error.h"
#include "tests/ops/message_of.h"

namespace fovea::ops {
namespace {

using at::IntArrayRef;
using at::Tensor;

/// [B,Z,Y,X,...] -> [B, windows, n, ...] of an even grid, windows of w along each axis.
Tensor partition(const Tensor& x, int64_t w) {
  const auto s = x.sizes();
  const int64_t tail = x.numel() / (s[0] * s[1] * s[2] * s[3]);
  return x.reshape({s[0], s[1] / w, w, s[2] / w, w, s[3] / w, w, tail})
      .permute({0, 1, 3, 5, 2, 4, 6, 7})
      .reshape({s[0], -1, w * w * w, tail});
}

/// Plain torch, for cubic windows that divide the grid: roll, partition, dense attention with an additive mask,
/// reverse.
Tensor composition(const Tensor& qkv, const Tensor& bias, int64_t w, int64_t shift, double mask_value) {
  const auto s = qkv.sizes();
  const int64_t b = s[0], h = s[5], c = s[6], n = w * w * w;
  const Tensor windows = partition(qkv.roll({-shift, -shift, -shift}, {1, 2, 3}), w).view({b, -1, n, 3, h, c});
  Tensor region = torch::zeros({1, s[1], s[2], s[3]}, at::kLong);
  for (int axis = 1; axis <= 3; ++axis) {
    const Tensor position = torch::arange(s[axis]);
    std::vector<int64_t> shape(4, 1);
    shape[axis] = s[axis];
    region =
        region * 3 + (position.ge(s[axis] - w).to(at::kLong) + position.ge(s[axis] - shift).to(at::kLong)).view(shape);
  }
  const Tensor id = partition(region, w).squeeze(-1);                                            // [1, windows, n]
  const Tensor mask = id.unsqueeze(-1).ne(id.unsqueeze(-2)).to(qkv.scalar_type()) * mask_value;  // [1, windows, n, n]
  const auto part = [&](int i) { return windows.select(3, i).transpose(2, 3); };  // [B, windows, H, n, C]
  const Tensor scores = part(0).matmul(part(1).transpose(-2, -1)) / std::sqrt(double(c)) + bias + mask.unsqueeze(2);
  Tensor out = scores.softmax(-1).matmul(part(2)).transpose(2, 3);  // [B, windows, n, H, C]
  out = out.reshape({b, s[1] / w, s[2] / w, s[3] / w, w, w, w, h * c}).permute({0, 1, 4, 2, 5, 3, 6, 7});
  return out.reshape({b, s[1], s[2], s[3], h * c}).roll({shift, shift, shift}, {1, 2, 3});
}

TEST(WindowAttentionOp, ForwardAndBackwardEqualTheTorchComposition) {
  for (const int64_t shift : {0, 1}) {
    torch::manual_seed(1);
    const Tensor x = torch::randn({2, 4, 6, 2, 3, 2, 5}, at::kDouble), b = torch::randn({2, 8, 8}, at::kDouble);
    const auto leaf = [](const Tensor& t) { return t.clone().requires_grad_(); };
    const Tensor qkv = leaf(x), bias = leaf(b), torch_qkv = leaf(x), torch_bias = leaf(b);
    const auto [out, lse] = window_attention(qkv, {}, {2, 2, 2}, {shift, shift, shift}, {}, {}, -3.0, bias);
    const Tensor expected = composition(torch_qkv, torch_bias, 2, shift, -3.0);
    ASSERT_EQ(out.sizes(), expected.sizes());
    EXPECT_LE((out - expected).abs().max().item<double>(), 1e-12);
    const Tensor grad_out = torch::randn_like(expected);
    out.backward(grad_out);
    expected.backward(grad_out);
    EXPECT_LE((qkv.grad() - torch_qkv.grad()).abs().max().item<double>(), 1e-12);
    EXPECT_LE((bias.grad() - torch_bias.grad()).abs().max().item<double>(), 1e-12);
    EXPECT_FALSE(lse.requires_grad());
  }
}

TEST(WindowAttentionOp, GradientsOfTableAndPadTokenEqualFiniteDifferences) {
  torch::manual_seed(2);
  const std::array<int64_t, 3> window{2, 3, 2}, shift{1, 1, 0};
  const Tensor qkv = torch::randn({1, 3, 4, 3, 3, 2, 4}, at::kDouble),
               table = torch::randn({45, 2}, at::kDouble).requires_grad_(),
               pad = torch::randn({3, 2, 4}, at::kDouble).requires_grad_(),
               grad_out = torch::randn({1, 3, 4, 3, 8}, at::kDouble);
  const auto loss = [&] {
    return (std::get<0>(window_attention(qkv, table, window, shift, {}, pad, -2.0)) * grad_out).sum();
  };
  loss().backward();
  torch::NoGradGuard no_grad;
  for (const Tensor& t : {table, pad}) {
    const Tensor flat = t.view({-1}), grad = t.grad().reshape({-1});
    for (int64_t i = 0; i < flat.numel(); ++i) {
      const double here = flat[i].item<double>(), step = 1e-6;
      flat[i] = here + step;
      const double up = loss().item<double>();
      flat[i] = here - step;
      const double down = loss().item<double>();
      flat[i] = here;
      EXPECT_NEAR(grad[i].item<double>(), (up - down) / (2 * step), 1e-6);
    }
  }
  EXPECT_TRUE(pad.grad()[0].eq(0).all().item<bool>()) << "padding never asks";
}

TEST(WindowAttentionOp, OneWindowIsDenseAttention) {
  const Tensor qkv = torch::randn({2, 2, 3, 4, 3, 2, 8}, at::kDouble);
  const auto [out, lse] = window_attention(qkv, {}, {2, 3, 4}, {0, 0, 0});
  const Tensor tokens = qkv.flatten(1, 3).permute({2, 0, 3, 1, 4});
  const auto [dense, dense_lse] = attention(tokens[0], tokens[1], tokens[2]);
  EXPECT_LE((out.flatten(1, 3) - dense.transpose(1, 2).flatten(2)).abs().max().item<double>(), 1e-12);
  EXPECT_LE((lse.flatten(2) - dense_lse).abs().max().item<double>(), 1e-12);
}

TEST(WindowAttentionOp, AbsentMaskValueIsTrueExclusionAndMinus100IsNearIt) {
  const Tensor qkv = torch::randn({1, 4, 4, 4, 3, 2, 8});
  const auto excluded = std::get<0>(window_attention(qkv, {}, {2, 2, 2}, {1, 1, 1}));
  const auto masked = std::get<0>(window_attention(qkv, {}, {2, 2, 2}, {1, 1, 1}, {}, {}, -100.0));
  const auto open = std::get<0>(window_attention(qkv, {}, {2, 2, 2}, {1, 1, 1}, {}, {}, 0.0));
  EXPECT_LE((excluded - masked).abs().max().item<float>(), 1e-6);
  EXPECT_GE((excluded - open).abs().max().item<float>(), 1e-2);
}

TEST(WindowAttentionOp, AnyStridesGiveTheSameBits) {
  const Tensor qkv = torch::randn({2, 3, 5, 4, 3, 2, 8}), table = torch::randn({27, 2});
  const std::array<int64_t, 3> window{2, 2, 2}, shift{1, 1, 1};
  const Tensor expected = std::get<0>(window_attention(qkv, table, window, shift));
  for (const Tensor& t :
       {qkv.transpose(1, 6).contiguous().transpose(1, 6), qkv.transpose(1, 3).contiguous().transpose(1, 3)}) {
    const auto out = std::get<0>(window_attention(t, table.t().contiguous().t(), window, shift));
    EXPECT_TRUE(out.equal(expected));
    EXPECT_TRUE(out.is_contiguous());
  }
}

TEST(WindowAttentionOp, EmptyBatchGivesEmptyResultsAndZeroGradients) {
  const Tensor qkv = torch::randn({0, 3, 3, 3, 3, 2, 4}).requires_grad_(),
               table = torch::randn({27, 2}).requires_grad_();
  const auto [out, lse] = window_attention(qkv, table, {2, 2, 2}, {1, 1, 1});
  EXPECT_EQ(out.sizes(), IntArrayRef({0, 3, 3, 3, 8}));
  EXPECT_EQ(lse.sizes(), IntArrayRef({0, 2, 3, 3, 3}));
  out.sum().backward();
  EXPECT_TRUE(table.grad().eq(0).all().item<bool>());
}

TEST(WindowAttentionOp, AutocastComputesInBFloat16AndLeavesTheTableAndFloat64) {
  const Tensor qkv = torch::randn({1, 3, 3, 3, 3, 2, 4}), table = torch::randn({27, 2}).requires_grad_();
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  const auto [out, lse] = window_attention(qkv, table, {2, 2, 2}, {0, 0, 0});
  const auto [wide, wide_lse] = window_attention(qkv.to(at::kDouble), table.to(at::kDouble), {2, 2, 2}, {0, 0, 0});
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_EQ(out.scalar_type(), at::kBFloat16);
  EXPECT_EQ(lse.scalar_type(), at::kFloat);
  EXPECT_EQ(wide.scalar_type(), at::kDouble);
  out.sum().backward();
  EXPECT_EQ(table.grad().scalar_type(), at::kFloat);
  EXPECT_TRUE(out.equal(std::get<0>(window_attention(qkv.to(at::kBFloat16), table, {2, 2, 2}, {0, 0, 0}))));
}

TEST(WindowAttentionOp, Bfloat16ErrsAtMostOneAndAHalfTimesAsMuchAsTorchsComposition) {
  Bfloat16Error error("window attention and its gradients");
  torch::manual_seed(8);
  for (int i = 0; i < 30; ++i) {
    const auto size = [](int64_t least, int64_t most) { return torch::randint(least, most + 1, {}).item<int64_t>(); };
    const int64_t w = size(2, 4), shift = size(0, w - 1), h = size(1, 3), c = size(4, 40), n = w * w * w;
    const auto values = [&](at::IntArrayRef shape) { return torch::randn(shape).to(at::kBFloat16); };
    const Tensor qkv = values({1, w * size(1, 2), w * size(1, 2), w * size(1, 2), 3, h, c}), bias = values({h, n, n});
    const Tensor grad_out = values({1, qkv.size(1), qkv.size(2), qkv.size(3), h * c});
    const auto results = [&](at::ScalarType dtype, bool ours) {
      const Tensor x = qkv.to(dtype).detach().clone().requires_grad_(),
                   b = bias.to(dtype).detach().clone().requires_grad_();
      const Tensor out = ours
                             ? std::get<0>(window_attention(x, {}, {w, w, w}, {shift, shift, shift}, {}, {}, -100.0, b))
                             : composition(x, b, w, shift, -100.0);
      out.backward(grad_out.to(dtype));
      return std::vector<Tensor>{out.detach(), x.grad(), b.grad()};
    };
    std::ostringstream problem;
    problem << "qkv " << qkv.sizes() << ", window " << w << ", shift " << shift;
    error.compare(results(at::kBFloat16, true), results(at::kBFloat16, false), results(at::kDouble, false),
                  problem.str());
  }
}

TEST(WindowAttentionOp, RowsNameTheirKeysAndRebuildTheOutput) {
  const Tensor qkv = torch::randn({2, 3, 4, 5, 3, 2, 4}), queries = torch::tensor({59, 0, 33}, at::kLong);
  const std::array<int64_t, 3> window{2, 2, 3}, shift{1, 0, 1};
  const auto [weights, keys] = window_attention_rows(qkv, {}, window, shift, queries);
  ASSERT_EQ(weights.sizes(), IntArrayRef({2, 2, 3, 12}));
  ASSERT_EQ(keys.sizes(), IntArrayRef({3, 12}));
  EXPECT_TRUE(weights.masked_select(keys.eq(-1).expand_as(weights)).eq(0).all().item<bool>());
  const Tensor v = qkv.select(4, 2).flatten(1, 3).index_select(1, keys.clamp_min(0).flatten()).view({2, 3, 12, 2, 4});
  const Tensor rebuilt = at::einsum("bhrn,brnhc->brhc", {weights, v}).flatten(2);
  const Tensor out = std::get<0>(window_attention(qkv, {}, window, shift)).flatten(1, 3).index_select(1, queries);
  EXPECT_LE((rebuilt - out).abs().max().item<float>(), 2e-6);
}

TEST(WindowAttentionOp, ErrorsNameTheArgumentTheRuleAndAllShapes) {
  const Tensor qkv = torch::randn({1, 4, 4, 4, 3, 2, 8}), table = torch::randn({27, 2}), bias = torch::randn({2, 8, 8}),
               pad = torch::randn({3, 2, 8});
  const std::string x = "; qkv [1,4,4,4,3,2,8]", w = ", window [2,2,2], shift [1,1,1]";
  const auto with = [](const Tensor& qkv, std::optional<Tensor> table, IntArrayRef window, IntArrayRef shift,
                       std::optional<Tensor> pad = {}, std::optional<Tensor> bias = {}) {
    return message_of([&] { window_attention(qkv, table, window, shift, {}, pad, {}, bias); });
  };
  const std::array<int64_t, 3> two{2, 2, 2}, one{1, 1, 1};
  EXPECT_EQ(with(qkv[0], {}, two, one),
            "window_attention: qkv has 6 axes, expected 7, [B,Z,Y,X,3,H,C]; qkv [4,4,4,3,2,8]" + w);
  EXPECT_EQ(with(qkv.narrow(4, 0, 2), {}, two, one),
            "window_attention: qkv has 2 parts, expected 3 (query, key, value); qkv [1,4,4,4,2,2,8]" + w);
  EXPECT_EQ(with(qkv, {}, {2, 0, 2}, one),
            "window_attention: window is 0 along Y, expected at least 1, and at most 1048576 tokens a window" + x +
                ", window [2,0,2], shift [1,1,1]");
  EXPECT_EQ(with(qkv, {}, {1 << 20, 2, 1}, {0, 0, 0}),
            "window_attention: window is 2 along Y, expected at least 1, and at most 1048576 tokens a window" + x +
                ", window [1048576,2,1], shift [0,0,0]");
  EXPECT_EQ(with(qkv, {}, two, {1, 1, 2}), "window_attention: shift is 2 along X, expected 0 <= shift < 2 (window)" +
                                               x + ", window [2,2,2], shift [1,1,2]");
  EXPECT_EQ(
      with(qkv, table.narrow(0, 0, 26), two, one),
      "window_attention: bias_table has 26 rows, expected 27 ((2wz-1)(2wy-1)(2wx-1))" + x + ", bias_table [26,2]" + w);
  EXPECT_EQ(with(qkv, table.narrow(1, 0, 1), two, one),
            "window_attention: bias_table has 1 heads, expected 2 (the heads of qkv)" + x + ", bias_table [27,1]" + w);
  EXPECT_EQ(
      with(qkv, table.to(at::kDouble), two, one),
      "window_attention: bias_table is float64, expected float32 (qkv is float32)" + x + ", bias_table [27,2]" + w);
  EXPECT_EQ(with(qkv, table, two, one, {}, bias),
            "window_attention: bias_table and bias are both given, expected at most one of them" + x +
                ", bias_table [27,2], bias [2,8,8]" + w);
  EXPECT_EQ(with(qkv, {}, two, one, {}, bias.narrow(1, 0, 7)),
            "window_attention: bias has 7 queries, expected 8 (the tokens of a window)" + x + ", bias [2,7,8]" + w);
  EXPECT_EQ(
      with(qkv, {}, two, one, pad.narrow(2, 0, 4)),
      "window_attention: pad_token has 4 channels, expected 8 (the channels of qkv)" + x + ", pad_token [3,2,4]" + w);
  EXPECT_EQ(
      with(qkv.to(at::kBFloat16), {}, two, one, pad),
      "window_attention: pad_token is float32, expected bfloat16 (the dtype of qkv)" + x + ", pad_token [3,2,8]" + w);
  EXPECT_EQ(message_of([&] {
              window_attention_rows(qkv, {}, two, one, torch::tensor({3, -1}, at::kLong));
            }),
            "window_attention_rows: queries[1] is -1, expected 0 <= query < 64 (the tokens of the grid)");
}

}  // namespace
}  // namespace fovea::ops
