#include "fovea/ops/up_convolution.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "message_of.h"

namespace fovea::ops {
namespace {

using torch::Tensor;

double relative(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>() / std::max(1.0, b.abs().max().item<double>()); }

TEST(UpConvolution, OutputAndEveryGradientEqualTorchsTransposedConvolutionBesideTheSkip) {
  torch::manual_seed(0);
  for (const auto dtype : {torch::kFloat, torch::kDouble})
    for (const int64_t factor : {1, 2, 3})
      for (const int64_t channels : {3, 16})
        for (const bool joined : {false, true})
          for (const bool channels_last : {false, true}) {
            const auto layout = [&](const Tensor& t) { return channels_last ? t.contiguous(at::MemoryFormat::ChannelsLast3d) : t; };
            std::vector<Tensor> leaves = {torch::randn({2, 5, 2, 3, 4}, dtype), torch::randn({5, channels, factor, factor, factor}, dtype)};
            if (joined) leaves.push_back(torch::randn({2, 7, 2 * factor, 3 * factor, 4 * factor}, dtype));
            for (auto& leaf : leaves) leaf.requires_grad_();
            auto expected = torch::conv_transpose3d(leaves[0], leaves[1], {}, factor);
            if (joined) expected = torch::cat({expected, leaves[2]}, 1);
            const auto out = up_convolution(layout(leaves[0]), leaves[1], joined ? OptionalTensor(layout(leaves[2])) : OptionalTensor());
            const auto upstream = torch::randn_like(expected);
            const auto expected_gradients = torch::autograd::grad({expected}, leaves, {upstream});
            const auto gradients = torch::autograd::grad({out}, leaves, {layout(upstream)});
            const double bound = dtype == torch::kFloat ? 1e-5 : 1e-12;
            EXPECT_LT(relative(out, expected), bound) << dtype << " factor " << factor << " channels " << channels << " joined " << joined << " last " << channels_last;
            for (size_t i = 0; i < gradients.size(); ++i) EXPECT_LT(relative(gradients[i], expected_gradients[i]), bound) << i;
            EXPECT_TRUE(out.is_contiguous(at::MemoryFormat::ChannelsLast3d));
          }
}

TEST(UpConvolution, NoSamplesGiveNoSamples) {
  EXPECT_EQ(up_convolution(torch::empty({0, 3, 2, 2, 2}), torch::randn({3, 4, 2, 2, 2})).sizes(), (std::vector<int64_t>{0, 4, 4, 4, 4}));
}

TEST(UpConvolution, RefusalsNameTheArgument) {
  using ::testing::HasSubstr;
  const auto x = torch::randn({1, 3, 2, 2, 2}), weight = torch::randn({3, 4, 2, 2, 2});
  EXPECT_THAT(message_of([&] { up_convolution(x[0], weight); }), HasSubstr("up_convolution: x has"));
  EXPECT_THAT(message_of([&] { up_convolution(x, torch::randn({5, 4, 2, 2, 2})); }), HasSubstr("weight has 5 channels, expected 3 (the channels of x)"));
  EXPECT_THAT(message_of([&] { up_convolution(x, torch::randn({3, 4, 2, 2, 3})); }), HasSubstr("weight has 3 taps, expected 2 (a cube)"));
  EXPECT_THAT(message_of([&] { up_convolution(x, weight, torch::randn({1, 4, 4, 4, 5})); }), HasSubstr("skip has 5 voxels, expected 4 (f times those of x)"));
}

}  // namespace
}  // namespace fovea::ops
