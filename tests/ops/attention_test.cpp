#include "fovea/ops/attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <limits>
#include <sstream>

#include "fovea/ops/ensure_registered.h"
#include "tests/ops/bfloat16_error.h"
#include "tests/ops/message_of.h"

namespace fovea::ops {
namespace {

using at::Tensor;

/// Plain torch with every score in memory. keep: bool [B,H,N,M].
Tensor composition(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias, const Tensor& keep,
                   double scale) {
  const int64_t group = q.size(1) / k.size(1);
  Tensor scores = scale * q.matmul(k.repeat_interleave(group, 1).transpose(2, 3)) + bias;
  scores = scores.masked_fill(~keep, -std::numeric_limits<double>::infinity());
  return scores.softmax(-1).matmul(v.repeat_interleave(group, 1));
}

struct Example {
  Tensor q, k, v, bias, key_mask, keep, grad_out;
  double scale = 0.4;

  explicit Example(at::ScalarType dtype) {
    torch::manual_seed(1);
    const auto options = at::TensorOptions().dtype(dtype);
    q = torch::randn({2, 4, 5, 8}, options), k = torch::randn({2, 2, 7, 8}, options),
    v = torch::randn({2, 2, 7, 6}, options);
    bias = torch::randn({4, 1, 7}, options), grad_out = torch::randn({2, 4, 5, 6}, options);
    key_mask = torch::ones({2, 7}, at::kBool);
    key_mask.index_put_({1, 3}, false);
    keep = torch::ones({5, 7}, at::kBool).tril(2).logical_and(key_mask.view({2, 1, 1, 7})).expand({2, 4, 5, 7});
  }
  std::vector<Tensor> leaves() const {
    std::vector<Tensor> all;
    for (const Tensor& t : {q, k, v, bias}) all.push_back(t.detach().clone().requires_grad_());
    return all;
  }
};

TEST(AttentionOp, ForwardAndBackwardEqualTheTorchComposition) {
  const Example e(at::kDouble);
  const auto ours = e.leaves(), torchs = e.leaves();
  const auto [out, lse] = attention(ours[0], ours[1], ours[2], ours[3], e.key_mask, /*causal=*/true, e.scale);
  const Tensor expected = composition(torchs[0], torchs[1], torchs[2], torchs[3], e.keep, e.scale);
  EXPECT_LE((out - expected).abs().max().item<double>(), 1e-12);
  out.backward(e.grad_out);
  expected.backward(e.grad_out);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(ours[i].grad().sizes(), ours[i].sizes());
    EXPECT_LE((ours[i].grad() - torchs[i].grad()).abs().max().item<double>(), 1e-12) << "qkvb"[i];
  }
  EXPECT_FALSE(lse.requires_grad());
}

TEST(AttentionOp, ScaleDefaultsToTheInverseRootOfTheChannels) {
  const Example e(at::kFloat);
  const auto [out, lse] = attention(e.q, e.k, e.v);
  const auto [same, same_lse] = attention(e.q, e.k, e.v, {}, {}, false, 1 / std::sqrt(8.0));
  EXPECT_TRUE(out.equal(same));
  EXPECT_TRUE(lse.equal(same_lse));
}

TEST(AttentionOp, AQueryWithoutKeysGivesZeroMinusInfinityAndNoGradient) {
  for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const Example e(dtype);
    const auto leaves = e.leaves();
    Tensor mask = e.key_mask.clone();
    mask.index_put_({0}, false);
    const auto [out, lse] = attention(leaves[0], leaves[1], leaves[2], leaves[3], mask);
    EXPECT_TRUE(out[0].eq(0).all().item<bool>());
    EXPECT_TRUE(lse[0].isneginf().all().item<bool>());
    out.backward(e.grad_out);
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(leaves[i].grad()[0].eq(0).all().item<bool>());
    EXPECT_TRUE(leaves[3].grad().isfinite().all().item<bool>());
    // The other sample does not notice.
    const auto [unmasked, unmasked_lse] = attention(e.q, e.k, e.v, e.bias, e.key_mask);
    EXPECT_TRUE(out[1].equal(unmasked[1]));
    EXPECT_TRUE(lse[1].equal(unmasked_lse[1]));
  }
}

TEST(AttentionOp, StridesOfAPackedBufferAndOfDistantChannelsGiveTheSameBits) {
  const Example e(at::kFloat);
  const auto [expected, expected_lse] = attention(e.q, e.q, e.q);
  const Tensor packed = at::stack({e.q, e.q, e.q}, 0).permute({1, 3, 0, 2, 4}).contiguous();  // [B,N,3,H,C]
  const auto part = [&](int i) { return packed.select(2, i).transpose(1, 2); };
  const auto [out, lse] = attention(part(0), part(1), part(2));
  EXPECT_TRUE(out.equal(expected));
  EXPECT_TRUE(out.transpose(1, 2).is_contiguous()) << "tokens before heads, as q";
  const Tensor distant = e.q.transpose(2, 3).contiguous().transpose(2, 3);
  EXPECT_TRUE(std::get<0>(attention(distant, distant, distant)).equal(expected));
}

TEST(AttentionOp, EmptyBatchQueriesOrKeys) {
  const Tensor q = torch::randn({1, 2, 3, 4}), none = torch::randn({1, 2, 0, 4}), nobody = torch::randn({0, 2, 3, 4});
  EXPECT_EQ(std::get<0>(attention(nobody, nobody, nobody)).sizes(), nobody.sizes());
  EXPECT_EQ(std::get<0>(attention(none, q, q)).sizes(), none.sizes());
  const auto [out, lse] = attention(q, none, none);
  EXPECT_TRUE(out.eq(0).all().item<bool>());
  EXPECT_TRUE(lse.isneginf().all().item<bool>());
}

TEST(AttentionOp, MetaTensorsAreCheckedAndShapedTheSame) {
  const Tensor q = torch::empty({2, 4, 1 << 20, 8}, at::kMeta), k = torch::empty({2, 2, 1 << 20, 8}, at::kMeta);
  const auto [out, lse] = attention(q.to(at::kBFloat16), k.to(at::kBFloat16), k.to(at::kBFloat16));
  EXPECT_EQ(out.sizes(), q.sizes());
  EXPECT_EQ(lse.sizes(), q.sizes().slice(0, 3));
  EXPECT_EQ(out.scalar_type(), at::kBFloat16);
  EXPECT_EQ(lse.scalar_type(), at::kFloat);
  EXPECT_EQ(
      message_of([&] { attention(q, k, k.narrow(1, 0, 1)); }),
      "attention: v has 1 heads, expected 2 (the heads of k); q [2,4,1048576,8], k [2,2,1048576,8], v [2,1,1048576,8]");
}

TEST(AttentionOp, BFloat16IsTheFloat32ResultRounded) {
  const Example e(at::kBFloat16);
  const auto [out, lse] = attention(e.q, e.k, e.v, e.bias);
  const auto [wide, wide_lse] =
      attention(e.q.to(at::kFloat), e.k.to(at::kFloat), e.v.to(at::kFloat), e.bias.to(at::kFloat));
  EXPECT_TRUE(out.equal(wide.to(at::kBFloat16)));
  EXPECT_TRUE(lse.equal(wide_lse));
  EXPECT_TRUE(std::get<0>(attention(e.q, e.k, e.v, e.bias.to(at::kFloat))).equal(out)) << "bias may stay float32";
}

TEST(AttentionOp, Bfloat16ErrsAtMostOneAndAHalfTimesAsMuchAsTorchsComposition) {
  Bfloat16Error error("attention and its gradients");
  torch::manual_seed(7);
  for (int i = 0; i < 60; ++i) {
    const auto size = [](int64_t least, int64_t most) { return torch::randint(least, most + 1, {}).item<int64_t>(); };
    // Two keys at least: with one the exact gradients are 0, and no error is a multiple of torch's.
    const int64_t b = size(1, 2), hk = size(1, 2), h = hk * size(1, 2), n = size(1, 90), m = size(2, 90),
                  c = size(1, 70), peaked = i % 3 ? 1 : 4;
    const auto values = [&](at::IntArrayRef shape) { return torch::randn(shape).to(at::kBFloat16); };
    const Tensor q = values({b, h, n, c}) * peaked, k = values({b, hk, m, c}), v = values({b, hk, m, c}),
                 bias = values({h, 1, m}), grad_out = values({b, h, n, c});
    const Tensor keep = torch::ones({b, h, n, m}, at::kBool);
    const auto results = [&](at::ScalarType dtype, bool ours) {
      std::vector<Tensor> leaves;
      for (const Tensor& t : {q, k, v, bias}) leaves.push_back(t.to(dtype).detach().clone().requires_grad_());
      const double scale = 1 / std::sqrt(double(c));
      const Tensor out = ours ? std::get<0>(attention(leaves[0], leaves[1], leaves[2], leaves[3], {}, false, scale))
                              : composition(leaves[0], leaves[1], leaves[2], leaves[3], keep, scale);
      out.backward(grad_out.to(dtype));
      return std::vector<Tensor>{out.detach(), leaves[0].grad(), leaves[1].grad(), leaves[2].grad(), leaves[3].grad()};
    };
    std::ostringstream problem;
    problem << "q " << q.sizes() << ", k " << k.sizes();
    error.compare(results(at::kBFloat16, true), results(at::kBFloat16, false), results(at::kDouble, false),
                  problem.str());
  }
}

TEST(AttentionOp, RowsTimesValuesAreTheOutput) {
  const Example e(at::kFloat);
  const Tensor queries = torch::tensor({4, 0, 0}, at::kLong);
  const Tensor rows = attention_rows(e.q, e.k, queries, e.bias, e.key_mask, e.scale, /*causal=*/true);
  ASSERT_EQ(rows.sizes(), at::IntArrayRef({2, 4, 3, 7}));
  const auto [out, lse] = attention(e.q, e.k, e.v, e.bias, e.key_mask, /*causal=*/true, e.scale);
  const Tensor rebuilt = rows.matmul(e.v.repeat_interleave(2, 1));
  EXPECT_LE((rebuilt - out.index_select(2, queries)).abs().max().item<float>(), 2e-6);
}

TEST(AttentionOp, ErrorsNameTheArgumentTheRuleAndAllShapes) {
  const Example e(at::kFloat);
  const std::string shapes = "; q [2,4,5,8], k [2,2,7,8], v [2,2,7,6]";
  const auto with = [&](const Tensor& q, const Tensor& k, const Tensor& v, std::optional<Tensor> bias = {},
                        std::optional<Tensor> mask = {}) {
    return message_of([&] { attention(q, k, v, bias, mask); });
  };
  EXPECT_EQ(with(e.q[0], e.k, e.v),
            "attention: q has 3 axes, expected 4, [B,H,N,C]; q [4,5,8], k [2,2,7,8], v [2,2,7,6]");
  EXPECT_EQ(with(e.q, e.k, e.v.to(at::kDouble)), "attention: v is float64, expected float32 (the dtype of q)" + shapes);
  EXPECT_EQ(with(e.q.to(at::kHalf), e.k, e.v),
            "attention: q is float16, expected float32, float64 or bfloat16" + shapes);
  EXPECT_EQ(with(e.q, e.k.narrow(0, 0, 1), e.v),
            "attention: k has 1 samples, expected 2 (the samples of q); q [2,4,5,8], k [1,2,7,8], v [2,2,7,6]");
  EXPECT_EQ(with(e.q, e.k.narrow(3, 0, 7), e.v),
            "attention: k has 7 channels, expected 8 (the channels of q); q [2,4,5,8], k [2,2,7,7], v [2,2,7,6]");
  EXPECT_EQ(with(e.q, e.k, e.v.narrow(2, 0, 6)),
            "attention: v has 6 tokens, expected 7 (the tokens of k); q [2,4,5,8], k [2,2,7,8], v [2,2,6,6]");
  EXPECT_EQ(
      with(e.q.narrow(1, 0, 3), e.k, e.v),
      "attention: q has 3 heads, expected a multiple of 2 (the heads of k); q [2,3,5,8], k [2,2,7,8], v [2,2,7,6]");
  EXPECT_EQ(with(e.q, e.k, e.v, e.bias.narrow(2, 0, 6)),
            "attention: bias has shape [4,1,6], expected a shape that broadcasts to [B,H,N,M] = [2,4,5,7]" + shapes +
                ", bias [4,1,6]");
  EXPECT_EQ(with(e.q, e.k, e.v, e.bias.to(at::kBFloat16)),
            "attention: bias is bfloat16, expected float32 (q is float32)" + shapes + ", bias [4,1,7]");
  EXPECT_EQ(with(e.q, e.k, e.v, {}, e.key_mask.to(at::kFloat)),
            "attention: key_mask is float32, expected bool (true = the key takes part)" + shapes + ", key_mask [2,7]");
  EXPECT_EQ(with(e.q, e.k, e.v, {}, e.key_mask.narrow(1, 0, 5)),
            "attention: key_mask has 5 tokens, expected 7 (the tokens of k)" + shapes + ", key_mask [2,5]");
  EXPECT_EQ(with(e.q, e.k.to(at::kMeta), e.v), "attention: k is on meta, expected cpu (the device of q)" + shapes);
  EXPECT_EQ(message_of([&] {
              attention_rows(e.q, e.k, torch::tensor({1, 5}, at::kLong));
            }),
            "attention_rows: queries[1] is 5, expected 0 <= query < 5 (the tokens of q)");
  EXPECT_EQ(message_of([&] { attention_rows(e.q, e.k, torch::tensor({1}, at::kInt)); }),
            "attention_rows: queries is int32, expected int64; q [2,4,5,8], k [2,2,7,8], queries [1]");
}

TEST(AttentionOp, SecondDerivativesAreRefusedByName) {
  const Example e(at::kDouble);
  const Tensor q = e.q.detach().requires_grad_();
  const Tensor out = std::get<0>(attention(q, e.k, e.v));
  const auto grads = torch::autograd::grad({out.square().sum()}, {q}, {}, true, /*create_graph=*/true);
  EXPECT_THAT(message_of([&] { grads[0].sum().backward(); }),
              testing::HasSubstr("derivative for fovea::attention_backward is not implemented"));
}

TEST(AttentionOp, ADroppedGraphReleasesInputsAndOutputs) {
  Tensor q = torch::randn({1, 1, 4, 8}).requires_grad_();
  c10::weak_intrusive_ptr<at::TensorImpl> watched(q.getIntrusivePtr());
  {
    auto [out, lse] = attention(q, q, q);
    q.reset();
    EXPECT_FALSE(watched.expired());
  }
  EXPECT_TRUE(watched.expired());
}

TEST(EnsureRegistered, KeepsEveryOpReachable) {
  ensure_registered();
  for (const char* op : {"attention", "attention_backward", "attention_rows", "window_attention",
                         "window_attention_backward", "window_attention_rows", "attention_pool", "axial_attention",
                         "deformable_attention"}) {
    EXPECT_TRUE(c10::Dispatcher::singleton().findSchema({std::string("fovea::") + op, ""}).has_value()) << op;
  }
}

}  // namespace
}  // namespace fovea::ops
