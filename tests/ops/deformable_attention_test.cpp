#include "fovea/ops/deformable_attention.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "message_of.h"

namespace fovea::ops {
namespace {

using at::Tensor;
namespace F = torch::nn::functional;

TEST(DeformableAttentionOp, OnePointOfOneLevelIsGridSampleWithItsGradients) {
  for (const int64_t axes : {2, 3}) {
    const std::vector<int64_t> size = axes == 2 ? std::vector<int64_t>{4, 5} : std::vector<int64_t>{2, 4, 5};
    const int64_t rows = axes == 2 ? 20 : 40;
    const Tensor value = torch::randn({1, rows, 1, 6}, at::kDouble).requires_grad_();
    const Tensor locations = (torch::rand({1, 9, 1, 1, 1, axes}, at::kDouble) * 1.4 - 0.2).requires_grad_();
    const Tensor out = deformable_attention(value, torch::tensor(size).unsqueeze(0), locations,
                                            torch::ones({1, 9, 1, 1, 1}, at::kDouble));
    std::vector<int64_t> volume{1, 6}, points(axes + 1, 1);
    volume.insert(volume.end(), size.begin(), size.end());
    points[axes - 1] = 9, points.push_back(axes);
    const Tensor grid = 2 * locations.view(points) - 1;
    const Tensor expected = F::grid_sample(value.permute({0, 2, 3, 1}).reshape(volume), grid,
                                           F::GridSampleFuncOptions().align_corners(false))
                                .reshape({1, 6, 9})
                                .transpose(1, 2);
    EXPECT_LE((out - expected).abs().max().item<double>(), 1e-13);
    const Tensor grad = torch::randn_like(out);
    const auto wanted = torch::autograd::grad({expected}, {value, locations}, {grad});
    const auto got = torch::autograd::grad({out}, {value, locations}, {grad});
    for (int i = 0; i < 2; ++i) EXPECT_LE((got[i] - wanted[i]).abs().max().item<double>(), 1e-12);
  }
}

TEST(DeformableAttentionOp, MetaTensorsAreCheckedAndShapedTheSame) {
  const auto meta = [](at::IntArrayRef sizes) { return torch::empty(sizes, at::kMeta); };
  const Tensor shapes = torch::empty({4, 2}, torch::dtype(at::kLong).device(at::kMeta));
  const Tensor out = deformable_attention(meta({2, 1 << 20, 8, 32}).to(at::kBFloat16), shapes,
                                          meta({2, 300, 8, 4, 4, 2}), meta({2, 300, 8, 4, 4}));
  EXPECT_EQ(out.sizes(), at::IntArrayRef({2, 300, 256}));
  EXPECT_EQ(out.scalar_type(), at::kBFloat16);
  EXPECT_EQ(
      message_of([&] {
        deformable_attention(meta({2, 9, 8, 32}), shapes, meta({2, 300, 8, 3, 4, 2}), meta({2, 300, 8, 4, 4}));
      }),
      "deformable_attention: locations has 3 levels, expected 4 (the levels of spatial_shapes); value [2,9,8,32], "
      "spatial_shapes [4,2], locations [2,300,8,3,4,2], weights [2,300,8,4,4]");
}

}  // namespace
}  // namespace fovea::ops
