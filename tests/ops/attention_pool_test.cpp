#include "fovea/ops/attention_pool.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "message_of.h"

namespace fovea::ops {
namespace {

using at::Tensor;

TEST(AttentionPoolOp, OutputAndGradientsEqualSoftmaxAndMatrixProduct) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const Tensor scores = torch::randn({30, 2}, dtype).requires_grad_(),
                 values = torch::randn({30, 7}, dtype).requires_grad_();
    const Tensor grad = torch::randn({1, 2, 7}, dtype);
    const Tensor expected = scores.softmax(0).t().matmul(values).unsqueeze(0);
    const auto [out, lse] = attention_pool(scores, values);
    const double bound = dtype == at::kFloat ? 2e-6 : 1e-13;
    EXPECT_LE((out - expected).abs().max().item<double>(), bound);
    EXPECT_LE((lse[0] - scores.logsumexp(0)).abs().max().item<double>(), bound);
    EXPECT_FALSE(lse.requires_grad());
    const auto wanted = torch::autograd::grad({expected}, {scores, values}, {grad});
    const auto got = torch::autograd::grad({out}, {scores, values}, {grad});
    for (int i = 0; i < 2; ++i) EXPECT_LE((got[i] - wanted[i]).abs().max().item<double>(), 2 * bound);
  }
}

TEST(AttentionPoolOp, AGradientThatNobodyWantsIsNotComputed) {
  const Tensor scores = torch::randn({30, 2}), values = torch::randn({30, 7}).requires_grad_();
  std::get<0>(attention_pool(scores, values)).sum().backward();
  EXPECT_TRUE(values.grad().defined());
  EXPECT_FALSE(scores.grad().defined());
}

TEST(AttentionPoolOp, MetaTensorsAreCheckedAndShapedTheSame) {
  const Tensor scores = torch::empty({1 << 20, 3}, at::kMeta), values = torch::empty({1 << 20, 1024}, at::kMeta);
  const auto [out, lse] =
      attention_pool(scores, values.to(at::kBFloat16), torch::empty({5}, scores.options().dtype(at::kLong)));
  EXPECT_EQ(out.sizes(), at::IntArrayRef({4, 3, 1024}));
  EXPECT_EQ(lse.sizes(), at::IntArrayRef({4, 3}));
  EXPECT_EQ(out.scalar_type(), at::kBFloat16);
  EXPECT_EQ(lse.scalar_type(), at::kFloat);
  EXPECT_EQ(
      message_of([&] { attention_pool(scores, values.narrow(0, 0, 5)); }),
      "attention_pool: scores has 1048576 rows, expected 5 (the rows of values); scores [1048576,3], values [5,1024]");
}

TEST(AttentionPoolOp, ADroppedGraphReleasesInputsAndOutputs) {
  Tensor values = torch::randn({30, 7}).requires_grad_();
  c10::weak_intrusive_ptr<at::TensorImpl> watched(values.getIntrusivePtr());
  {
    const auto outputs = attention_pool(torch::randn({30, 1}), values);
    values.reset();
    EXPECT_FALSE(watched.expired());
  }
  EXPECT_TRUE(watched.expired());
}

}  // namespace
}  // namespace fovea::ops
