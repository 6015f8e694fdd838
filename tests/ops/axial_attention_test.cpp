#include "fovea/ops/axial_attention.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "fovea/ops/attention.h"
#include "message_of.h"

namespace fovea::ops {
namespace {

using at::Tensor;

TEST(AxialAttentionOp, UntiedIsAttentionWithTheOtherAxisAsBatch) {
  const Tensor qkv = torch::randn({1, 6, 19, 3, 2, 8}), bias = torch::randn({2, 19, 19});
  const auto part = [&](int i) { return qkv[0].select(2, i).transpose(1, 2); };  // [R,H,L,C]
  const Tensor rows = std::get<0>(attention(part(0), part(1), part(2), bias)).transpose(1, 2).flatten(2);
  EXPECT_TRUE(axial_attention(qkv, "residues", bias)[0].equal(rows));
  const auto turned = [&](int i) { return part(i).permute({2, 1, 0, 3}); };  // [L,H,R,C]
  const Tensor columns = std::get<0>(attention(turned(0), turned(1), turned(2))).transpose(1, 2).flatten(2);
  EXPECT_TRUE(axial_attention(qkv, "sequences")[0].equal(columns.transpose(0, 1)));
}

TEST(AxialAttentionOp, TiedIsAttentionOverTheChannelsOfAllSequences) {
  const Tensor qkv = torch::randn({1, 6, 19, 3, 2, 8}, at::kDouble).requires_grad_();
  const auto part = [&](int i) { return qkv.select(3, i).permute({0, 3, 2, 1, 4}).flatten(3); };  // [1,H,L,R*C]
  const Tensor joined = std::get<0>(attention(part(0), part(1), part(2)));
  const Tensor expected = joined.unflatten(3, {6, 8}).permute({0, 3, 2, 1, 4}).flatten(3);
  const Tensor out = axial_attention(qkv, "residues", {}, /*tied=*/true);
  EXPECT_LE((out - expected).abs().max().item<double>(), 1e-13);
  const Tensor grad = torch::randn_like(out);
  const Tensor wanted = torch::autograd::grad({expected}, {qkv}, {grad})[0],
               got = torch::autograd::grad({out}, {qkv}, {grad})[0];
  EXPECT_LE((got - wanted).abs().max().item<double>(), 1e-13);
}

TEST(AxialAttentionOp, MetaTensorsAreCheckedAndShapedTheSame) {
  const Tensor qkv = torch::empty({1, 100000, 512, 3, 8, 32}, at::kMeta);
  EXPECT_EQ(axial_attention(qkv, "sequences").sizes(), at::IntArrayRef({1, 100000, 512, 256}));
  EXPECT_EQ(message_of([&] { axial_attention(qkv, "columns"); }),
            "axial_attention: axis is \"columns\", expected \"residues\" or \"sequences\"; qkv [1,100000,512,3,8,32]");
}

}  // namespace
}  // namespace fovea::ops
