// CBAM against a restatement of its paper in torch, counts of parameters, ties.
#include "fovea/nn/cbam.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fovea/ops/spatial_gate.h"

namespace fovea::nn {
namespace {

using testing::HasSubstr;
const auto kDouble = torch::TensorOptions(torch::kFloat64);

double difference(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).abs().max().item<double>(); }

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "accepted";
}

int64_t count(const torch::nn::Module& module) {
  int64_t n = 0;
  for (const auto& p : module.parameters()) n += p.numel();
  return n;
}

// Woo et al. 2018, equations 1 to 3, in torch's own operators; batch norm by its definition.
struct Restated {
  std::map<std::string, torch::Tensor> w;
  bool training;

  explicit Restated(const torch::nn::Module& cbam, bool training) : training(training) {
    for (const auto& p : cbam.named_parameters())
      w[p.key()] = p.value().detach().clone().requires_grad_();
    for (const auto& b : cbam.named_buffers()) w[b.key()] = b.value().clone();
  }

  torch::Tensor perceptron(const torch::Tensor& pooled) {
    const auto hidden = torch::relu(torch::addmm(w["ChannelGate.mlp.1.bias"], pooled, w["ChannelGate.mlp.1.weight"].t()));
    return torch::addmm(w["ChannelGate.mlp.3.bias"], hidden, w["ChannelGate.mlp.3.weight"].t());
  }

  torch::Tensor operator()(const torch::Tensor& x) {
    const auto voxels = x.flatten(2);  // B C V
    auto gate = torch::sigmoid(perceptron(voxels.mean(2)) + perceptron(std::get<0>(voxels.max(2))));
    const auto y = (gate.unsqueeze(2) * voxels).view(x.sizes());
    const auto stack = torch::cat({std::get<0>(y.max(1, true)), y.mean(1, true)}, 1);
    const auto& weight = w["SpatialGate.spatial.conv.weight"];
    const auto map = x.dim() == 4 ? torch::conv2d(stack, weight, {}, 1, weight.size(2) / 2)
                                  : torch::conv3d(stack, weight, {}, 1, weight.size(2) / 2);
    const auto mean = training ? map.mean() : w["SpatialGate.spatial.bn.running_mean"];
    const auto variance = training ? map.var(/*unbiased=*/false) : w["SpatialGate.spatial.bn.running_var"];
    const auto normed = (map - mean) / (variance + 1e-5).sqrt() * w["SpatialGate.spatial.bn.weight"] +
                        w["SpatialGate.spatial.bn.bias"];
    return torch::sigmoid(normed) * y;
  }
};

Cbam drawn(int64_t channels, int64_t kernel, int64_t axes, torch::ScalarType type) {
  Cbam cbam(CbamOptions(channels).gate(SpatialGateOptions().kernel(kernel).axes(axes)));
  torch::NoGradGuard no_grad;
  for (auto& p : cbam->parameters()) p.copy_(torch::randn_like(p) * (p.dim() > 1 ? 0.3 : 1));
  for (auto& b : cbam->named_buffers())
    if (b.key().ends_with("running_mean")) b.value().fill_(0.3);
    else if (b.key().ends_with("running_var")) b.value().fill_(2.5);
  cbam->to(type);
  return cbam;
}

TEST(Cbam, HasTheCountsAndTheNamesOfThePaper) {
  for (const auto& [kernel, axes, weights] :
       std::vector<std::array<int64_t, 3>>{{1, 2, 2}, {3, 2, 18}, {7, 2, 98}, {1, 3, 2}, {3, 3, 54}, {7, 3, 686}}) {
    SpatialGate gate(SpatialGateOptions().kernel(kernel).axes(axes));
    EXPECT_EQ(gate->weight.numel(), weights);
    EXPECT_EQ(count(*gate), weights + 2);
  }
  // ResNet-50's 16 blocks: 2 532 592, of which the spatial gates have 1600.
  int64_t all = 0, spatial = 0;
  const std::array<std::array<int64_t, 2>, 4> stages = {{{256, 3}, {512, 4}, {1024, 6}, {2048, 3}}};
  for (const auto& [channels, blocks] : stages) {
    Cbam cbam(CbamOptions(channels).gate(SpatialGateOptions().axes(2)));
    all += blocks * count(*cbam), spatial += blocks * count(*cbam->spatial_gate);
  }
  EXPECT_EQ(all, 2532592);
  EXPECT_EQ(spatial, 1600);
  std::vector<std::string> names;
  Cbam one(CbamOptions(32).gate(SpatialGateOptions().axes(2)));
  for (const auto& p : one->named_parameters()) names.push_back(p.key());
  for (const auto& b : one->named_buffers()) names.push_back(b.key());
  EXPECT_THAT(names, testing::UnorderedElementsAre(
                         "ChannelGate.mlp.1.weight", "ChannelGate.mlp.1.bias", "ChannelGate.mlp.3.weight",
                         "ChannelGate.mlp.3.bias", "SpatialGate.spatial.conv.weight", "SpatialGate.spatial.bn.weight",
                         "SpatialGate.spatial.bn.bias", "SpatialGate.spatial.bn.running_mean",
                         "SpatialGate.spatial.bn.running_var", "SpatialGate.spatial.bn.num_batches_tracked"));
}

TEST(Cbam, EqualsThePaperRestatedInTorchForwardAndBackward) {
  torch::manual_seed(0);
  for (const int64_t axes : {2, 3})
    for (const int64_t kernel : {1, 3, 7})
      for (const bool training : {true, false}) {
        Cbam ours = drawn(32, kernel, axes, torch::kFloat64);
        ours->train(training);
        Restated paper(*ours, training);
        const auto x = axes == 2 ? torch::randn({2, 32, 9, 11}, kDouble) : torch::randn({2, 32, 4, 5, 6}, kDouble);
        auto a = x.clone().requires_grad_(), b = x.clone().requires_grad_();
        const auto got = ours(a), expected = paper(b);
        EXPECT_LT(difference(got, expected), 1e-12) << axes << "-D, k " << kernel;
        const auto upstream = torch::randn_like(x);
        got.backward(upstream), expected.backward(upstream);
        EXPECT_LT(difference(a.grad(), b.grad()), 1e-12);
        for (const auto& p : ours->named_parameters())
          EXPECT_LT(difference(p.value().grad(), paper.w[p.key()].grad()), 1e-10) << p.key();
      }
}

TEST(Cbam, FusedEvaluationEqualsTheComposition) {
  torch::manual_seed(1);
  for (const int64_t axes : {2, 3}) {
    Cbam ours = drawn(20, 7, axes, torch::kFloat32);
    ours->eval();
    const auto x = axes == 2 ? torch::randn({2, 20, 13, 21}) : torch::randn({1, 20, 5, 9, 18});
    const auto recorded = ours(x);
    torch::NoGradGuard no_grad;
    EXPECT_LT(difference(ours(x), recorded), 2e-6);
    EXPECT_EQ(ours(x).sizes(), x.sizes());
    const auto map = ours->spatial_gate->map(x);
    EXPECT_EQ(map.dim(), axes + 2);
    EXPECT_EQ(map.size(1), 1);
  }
}

TEST(Cbam, BatchNormFollowsWithMomentumOfAHundredth) {
  SpatialGate gate(SpatialGateOptions().kernel(3));
  const auto x = torch::randn({2, 4, 3, 4, 5});
  gate(x);
  for (const auto& b : gate->named_buffers())
    if (b.key() == "spatial.bn.running_var") {
      const auto map = torch::conv3d(ops::channel_pool(x), gate->weight, {}, 1, 1);
      EXPECT_NEAR(b.value().item<double>(), 0.99 + 0.01 * map.var().item<double>(), 1e-6);
    }
}

TEST(Cbam, SharesTheGradientOfTheLargestEquallyAmongTies) {
  const auto x = torch::tensor({1.0, 5.0, 5.0, 2.0}, kDouble).view({1, 4, 1, 1, 1}).requires_grad_();
  ops::channel_pool(x).select(1, 0).sum().backward();
  EXPECT_TRUE(torch::equal(x.grad().flatten(), torch::tensor({0.0, 0.5, 0.5, 0.0}, kDouble)));
  const auto dead = torch::zeros({1, 8, 2, 2, 2}, kDouble).requires_grad_();  // after a ReLU that lets nothing through
  ops::channel_pool(dead).select(1, 0).sum().backward();
  EXPECT_EQ(dead.grad().min().item<double>(), 0.125);
  EXPECT_EQ(dead.grad().max().item<double>(), 0.125);
}

TEST(Cbam, RefusesWhatItCannotGateInOneLine) {
  EXPECT_THAT(refusal([] { SpatialGate(SpatialGateOptions().kernel(4)); }), HasSubstr("kernel is 4, expected an odd number"));
  EXPECT_THAT(refusal([] { SpatialGate(SpatialGateOptions().axes(1)); }), HasSubstr("axes is 1, expected 2 or 3"));
  EXPECT_THAT(refusal([] { SpatialGate()->forward(torch::zeros({1, 4, 5, 5})); }), HasSubstr("x has 4 axes, expected 5"));
  EXPECT_THAT(refusal([] { ChannelGate(ChannelGateOptions(8))->forward(torch::zeros({1, 4, 5, 5})); }),
              HasSubstr("expected [B,8,...]"));
  EXPECT_THAT(refusal([] { ops::channel_pool(torch::zeros({1, 0, 2, 2, 2})); }), HasSubstr("channels"));
  EXPECT_EQ(SpatialGate()->forward(torch::zeros({0, 4, 5, 5, 5})).size(0), 0);
}

}  // namespace
}  // namespace fovea::nn
