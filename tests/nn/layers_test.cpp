#include <gtest/gtest.h>

#include "fovea/nn/convolution.h"
#include "fovea/nn/initialise.h"
#include "fovea/nn/mlp.h"
#include "fovea/nn/patch_embed.h"
#include "fovea/nn/patch_embedding_block.h"
#include "fovea/nn/patch_merging.h"
#include "fovea/nn/swin_stage.h"
#include "fovea/nn/trace.h"
#include "fovea/nn/transformer_block.h"
#include "fovea/nn/unet_block.h"

namespace fovea::nn {
namespace {

double difference(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).abs().max().item<double>() / std::max(1.0, b.abs().max().item<double>()); }

TEST(PatchEmbed, PadsTheFarEndToWholePatches) {
  torch::manual_seed(0);
  PatchEmbed embed(PatchEmbedOptions(2, 6).patch({2, 3, 4}));
  const auto x = torch::randn({1, 2, 5, 6, 7});
  const auto tokens = embed(x);
  EXPECT_EQ(tokens.sizes(), (std::vector<int64_t>{1, 6, 3, 2, 2}));
  const auto corner = torch::zeros({2, 2, 3, 4});
  corner.slice(1, 0, 1).slice(3, 0, 3).copy_(x[0].slice(1, 4, 5).slice(2, 3, 6).slice(3, 4, 7));
  const auto expected = torch::matmul(embed->proj->weight.flatten(1), corner.flatten()) + embed->proj->bias;
  EXPECT_LT(difference(tokens.select(2, 2).select(2, 1).select(2, 1)[0], expected), 1e-5);
}

TEST(PatchEmbed, NormIsOverTheChannelsOfEachToken) {
  PatchEmbed embed(PatchEmbedOptions(1, 8).norm(true));
  const auto tokens = embed(torch::randn({2, 1, 4, 4, 4}));
  EXPECT_LT(tokens.mean(1).abs().max().item<float>(), 1e-5);
}

// Which octants (as 4z + 2y + x) the merged token holds, read off by marking them with their number.
std::vector<int64_t> octants_of(MergingOrder order) {
  PatchMerging merging(PatchMergingOptions(1).order(order));
  torch::NoGradGuard no_grad;
  auto x = torch::arange(8, torch::kFloat).view({1, 2, 2, 2, 1});
  // Put a linear reduction that copies each slot, one after the other, behind a norm that keeps the order of values.
  std::vector<int64_t> found;
  for (int64_t slot = 0; slot < 8; ++slot) {
    merging->reduction->weight.zero_();
    merging->reduction->weight[0][slot] = 1;
    merging->norm->weight.fill_(1);
    const float value = merging(x).flatten()[0].item<float>();
    // What the norm makes of each octant's number depends on the eight numbers taken; find it among them.
    found.push_back(static_cast<int64_t>(std::lround(value * 1e4)));
  }
  return found;
}

TEST(PatchEmbeddingBlock, ConvolutionAndPerceptronAreTheSameMapWithInputsInAnotherOrder) {
  torch::manual_seed(5);
  const PatchEmbeddingOptions options(2, {4, 6, 8}, {2, 3, 4}, 12);
  PatchEmbeddingBlock convolution(options), perceptron(PatchEmbeddingOptions(options).projection(PatchProjection::kPerceptron));
  torch::NoGradGuard no_grad;
  auto from = convolution->named_parameters(), to = perceptron->named_parameters();
  const auto weight = perceptron_weight(from["patch_embeddings.weight"]);
  to["patch_embeddings.1.weight"].copy_(weight);
  EXPECT_TRUE(convolution_weight(weight, 2, {2, 3, 4}).equal(from["patch_embeddings.weight"]));
  EXPECT_THROW(convolution_weight(weight, 1, {2, 3, 4}), c10::Error);
  to["patch_embeddings.1.bias"].copy_(from["patch_embeddings.bias"]);
  to["position_embeddings"].copy_(from["position_embeddings"]);
  const auto x = torch::randn({2, 2, 4, 6, 8});
  EXPECT_EQ(convolution(x).sizes(), (std::vector<int64_t>{2, 8, 12}));
  EXPECT_LT(difference(convolution(x), perceptron(x)), 1e-5);
}

TEST(PatchEmbeddingBlock, SinCosPositionsFollowTheirFormulaAndAreNotTrained) {
  const Triple grid = {2, 3, 4};
  const auto table = sincos_positions(grid, 12);
  ASSERT_EQ(table.sizes(), (std::vector<int64_t>{1, 24, 12}));
  const int64_t position[] = {1, 2, 3};  // the last token
  const int order[] = {1, 0, 2};
  for (int block = 0; block < 3; ++block) {
    for (int k = 0; k < 2; ++k) {
      const double angle = static_cast<double>(position[order[block]]) * std::pow(10000.0, -k / 2.0);
      EXPECT_NEAR(table[0][23][block * 4 + k].item<float>(), std::sin(angle), 1e-6);
      EXPECT_NEAR(table[0][23][block * 4 + 2 + k].item<float>(), std::cos(angle), 1e-6);
    }
  }
  PatchEmbeddingBlock block(PatchEmbeddingOptions(1, {4, 6, 8}, {2, 2, 2}, 12).position(PositionEmbedding::kSinCos));
  EXPECT_TRUE(block->position_embeddings.equal(table));
  EXPECT_FALSE(block->position_embeddings.requires_grad());
}

TEST(PatchEmbeddingBlock, PositionsAreInterpolatedToAnotherGrid) {
  PatchEmbeddingBlock block(PatchEmbeddingOptions(1, {4, 4, 4}, {2, 2, 2}, 6));
  torch::NoGradGuard no_grad;
  block->position_embeddings.fill_(3);
  EXPECT_LT(difference(block(torch::zeros({1, 1, 8, 4, 6})), 3 + block->named_parameters()["patch_embeddings.bias"].expand({1, 24, 6})), 1e-6);
}

TEST(ResizePositions, KeepsLinearPositionsAwayFromTheBorderAndTheSameGrid) {
  const Triple from = {4, 4, 4}, to = {8, 4, 2};
  const auto centres = [](const Triple& grid) {  // of tokens, in shares of the volume
    std::vector<torch::Tensor> axes;
    for (const int64_t n : grid) axes.push_back((torch::arange(n, torch::kDouble) + 0.5) / double(n));
    const auto g = torch::meshgrid(axes, "ij");
    return torch::stack({g[0], g[1], g[2]}, -1);  // [Z,Y,X,3]
  };
  const auto table = centres(from).reshape({1, 64, 3});
  EXPECT_TRUE(resize_positions(table, from, from).equal(table));
  const auto resized = resize_positions(table, from, to).view({8, 4, 2, 3}), expected = centres(to);
  EXPECT_LT((resized - expected).slice(0, 1, 7).abs().max().item<double>(), 1e-12);
  EXPECT_THROW(resize_positions(table, {4, 4, 5}, to), c10::Error);
}

TEST(SelfAttention, EqualsSoftmaxOfScoresAndItsRowsAreThoseWeights) {
  torch::manual_seed(6);
  SelfAttention attention(SelfAttentionOptions(12, 3).qkv_bias(true));
  attention->set_capture(true);
  const auto x = torch::randn({2, 7, 12});
  const auto qkv = attention->qkv(x).view({2, 7, 3, 3, 4}).permute({2, 0, 3, 1, 4});
  const auto weights = (torch::matmul(qkv[0], qkv[1].transpose(-1, -2)) / 2.0).softmax(-1);
  const auto expected = attention->out_proj(torch::matmul(weights, qkv[2]).transpose(1, 2).reshape({2, 7, 12}));
  EXPECT_LT(difference(attention(x), expected), 1e-5);
  const auto queries = torch::tensor({6, 2}, torch::kLong);
  EXPECT_LT(difference(attention->rows(queries), weights.index_select(2, queries)), 1e-5);
}

TEST(TransformerBlock, HoldsTheNormThatMonaiStoresWithoutTrainingIt) {
  TransformerBlock block(SelfAttentionOptions(12, 3), 24);
  block(torch::randn({1, 5, 12})).square().sum().backward();
  for (const auto& p : block->named_parameters()) {
    const bool unused = p.key().starts_with("norm_cross_attn");
    EXPECT_EQ(p.value().requires_grad(), !unused) << p.key();
    EXPECT_EQ(p.value().grad().defined(), !unused) << p.key();
  }
}

TEST(PatchMerging, EachOrderTakesTheOctantsItNames) {
  const auto rank = [](const std::vector<int64_t>& values) {  // equal values share a rank
    auto sorted = values;
    std::sort(sorted.begin(), sorted.end());
    sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
    std::vector<int64_t> ranks;
    for (const int64_t v : values) ranks.push_back(std::lower_bound(sorted.begin(), sorted.end(), v) - sorted.begin());
    return ranks;
  };
  EXPECT_EQ(rank(octants_of(MergingOrder::kAll)), (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(rank(octants_of(MergingOrder::kAxisSum)), (std::vector<int64_t>{0, 4, 2, 1, 6, 5, 3, 7}));
  // Octants 0, 4, 2, 1, 6, 2, 1, 7: six different ones, 3 and 5 are never seen.
  EXPECT_EQ(rank(octants_of(MergingOrder::kRepeated)), (std::vector<int64_t>{0, 3, 2, 1, 4, 2, 1, 5}));
}

TEST(PatchMerging, OddAxesArePaddedWithAZero) {
  PatchMerging merging(PatchMergingOptions(4));
  EXPECT_EQ(merging(torch::randn({1, 3, 4, 5, 4})).sizes(), (std::vector<int64_t>{1, 2, 2, 3, 8}));
}

TEST(Mlp, IsTwoLinearMapsAroundExactGelu) {
  Mlp mlp(MlpOptions(2, 3));
  const auto x = torch::randn({4, 2});
  const auto hidden = torch::linear(x, mlp->linear1->weight, mlp->linear1->bias);
  const auto gelu = hidden * 0.5 * (1 + torch::erf(hidden / std::sqrt(2.0)));
  EXPECT_LT(difference(mlp(x), torch::linear(gelu, mlp->linear2->weight, mlp->linear2->bias)), 1e-6);
}

TEST(Convolution, ForwardAndGradientsEqualTorchsForSmallAndLargeMapsAndOneOrTwoSamples) {
  torch::manual_seed(1);
  // 12 * 16 * 16 is on torch's own kernel, 12 * 48 * 48 and batches are on oneDNN.
  for (const auto& [batch, size] : {std::pair<int64_t, int64_t>{1, 16}, {1, 48}, {2, 7}}) {
    for (const int64_t kernel : {1, 3}) {
      Convolution convolution(ConvolutionOptions(12, 5, kernel).bias(true));
      const auto x = torch::randn({batch, 12, size, size, 3}).requires_grad_();
      const auto grad = torch::randn({batch, 5, size, size, 3});
      const auto y = convolution(x);
      y.backward(grad);
      const auto dx = x.grad().clone(), dweight = convolution->conv->weight.grad().clone(), dbias = convolution->conv->bias.grad().clone();

      const auto xd = x.detach().to(torch::kDouble).requires_grad_(), wd = convolution->conv->weight.detach().to(torch::kDouble).requires_grad_(),
                 bd = convolution->conv->bias.detach().to(torch::kDouble).requires_grad_();
      const auto yd = torch::conv3d(xd, wd, bd, /*stride=*/1, /*padding=*/kernel / 2);
      yd.backward(grad.to(torch::kDouble));
      EXPECT_LT(difference(y, yd), 1e-5) << batch << " " << size << " " << kernel;
      EXPECT_LT(difference(dx, xd.grad()), 1e-5);
      EXPECT_LT(difference(dweight, wd.grad()), 1e-5);
      EXPECT_LT(difference(dbias, bd.grad()), 1e-5);
    }
  }
}

TEST(UpConvolution, EqualsTorchsTransposedConvolution) {
  UpConvolution up(6, 4, 2);
  const auto x = torch::randn({2, 6, 3, 4, 5});
  EXPECT_LT(difference(up(x), torch::conv_transpose3d(x, up->conv->weight, {}, /*stride=*/2)), 1e-5);
}

TEST(UnetBlock, EqualsItsFormulaWithAndWithoutProjectionAndResidual) {
  torch::manual_seed(2);
  for (const auto& [in, out] : {std::pair<int64_t, int64_t>{5, 5}, {3, 7}}) {
    for (const Residual residual : {Residual::kNo, Residual::kYes}) {
      UnetBlock block(in, out, residual);
      const auto x = torch::randn({2, in, 4, 5, 6});
      const auto conv = [](const torch::Tensor& t, const Convolution& c) { return torch::conv3d(t, c->conv->weight, {}, 1, c->conv->weight.size(2) / 2); };
      auto y = torch::leaky_relu(torch::instance_norm(conv(x, block->conv1), {}, {}, {}, {}, true, 0, 1e-5, false), 0.01);
      y = torch::instance_norm(conv(y, block->conv2), {}, {}, {}, {}, true, 0, 1e-5, false);
      if (residual == Residual::kYes) y = y + (in == out ? x : torch::instance_norm(conv(x, block->conv3), {}, {}, {}, {}, true, 0, 1e-5, false));
      EXPECT_LT(difference(block(x), torch::leaky_relu(y, 0.01)), 1e-5);
      EXPECT_EQ(block->named_parameters().contains("conv3.conv.weight"), residual == Residual::kYes && in != out);
    }
  }
}

TEST(UnetBlock, RefusesASingleVoxelInOneLine) {
  UnetBlock block(2, 2, Residual::kYes);
  try {
    block(torch::randn({1, 2, 1, 1, 1}));
    FAIL();
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what_without_backtrace()).find("x has one voxel, expected more"), std::string::npos) << error.what_without_backtrace();
  }
}

TEST(UnetrUpBlock, DoublesTheGridAndAppendsTheSkipBehindTheUpsampled) {
  UnetrUpBlock up(8, 4, Residual::kYes);
  const auto x = torch::randn({1, 8, 2, 3, 4}), skip = torch::randn({1, 4, 4, 6, 8});
  const auto expected = up->conv_block(torch::cat({up->transp_conv(x), skip}, 1));
  EXPECT_TRUE(up(x, skip).equal(expected));
}

TEST(SwinStage, KeepsValuesWhetherOrNotItsInputIsChannelsLast) {
  SwinStage stage(SwinStageOptions(WindowAttentionOptions(6, 2).window({2, 2, 2})).drop_path({0, 0}));
  stage->eval();
  const auto x = torch::randn({1, 6, 4, 4, 6});
  const auto y = stage(x);
  EXPECT_EQ(y.sizes(), (std::vector<int64_t>{1, 12, 2, 2, 3}));
  EXPECT_TRUE(stage(x.contiguous(at::MemoryFormat::ChannelsLast3d)).equal(y));
}

TEST(Trace, SeesWhatEveryLayerReturnsByItsName) {
  UnetrBasicBlock block(2, 3, Residual::kYes);
  const auto x = torch::randn({1, 2, 4, 4, 4});
  torch::Tensor y;
  std::map<std::string, torch::Tensor> seen;
  {
    const Trace trace(*block);
    y = block(x);
    for (const auto& [name, tensor] : trace.outputs()) seen[name] = tensor;
  }
  EXPECT_TRUE(seen.at("layer").equal(y));
  EXPECT_EQ(seen.at("layer.conv1").sizes(), (std::vector<int64_t>{1, 3, 4, 4, 4}));
  EXPECT_TRUE(seen.contains("layer.conv3"));
  block(x);  // no Trace lives: nothing is recorded, nothing breaks
}

TEST(TruncatedNormal, HasTheAskedDeviationAndStaysInside) {
  torch::manual_seed(3);
  const auto t = torch::empty({100000});
  truncated_normal_(t, 0.02);
  EXPECT_NEAR(t.std().item<double>(), 0.02, 3e-4);
  truncated_normal_(t, 1, -0.5, 0.25);
  EXPECT_LE(t.max().item<float>(), 0.25f);
  EXPECT_GE(t.min().item<float>(), -0.5f);
}

TEST(SelfAttention, WithADistanceScoresFallWithTheSquareOfIt) {
  torch::manual_seed(7);
  SelfAttention layer(SelfAttentionOptions(12, 2).distance(true));
  layer->to(torch::kDouble);
  const auto x = torch::randn({2, 6, 12}, torch::kDouble), places = 3 * torch::randn({2, 5, 3}, torch::kDouble);
  layer->set_capture(true);
  const auto out = layer->forward(x, places);
  const auto parts = layer->qkv(x).view({2, 6, 3, 2, 6}).permute({2, 0, 3, 1, 4});
  auto far = torch::zeros({2, 6, 6}, torch::kDouble);  // the first token is nowhere
  far.slice(1, 1).slice(2, 1).copy_((places.unsqueeze(2) - places.unsqueeze(1)).square().sum(3));
  const auto scores = torch::matmul(parts[0], parts[1].transpose(2, 3)) / std::sqrt(6.0) - layer->distance.exp().view({1, 2, 1, 1}) * far.unsqueeze(1);
  const auto weights = scores.softmax(3);
  const auto expected = layer->out_proj(torch::matmul(weights, parts[2]).transpose(1, 2).reshape({2, 6, 12}));
  EXPECT_LT((out - expected).abs().max().item<double>(), 1e-12);
  EXPECT_LT((layer->rows(torch::arange(6)) - weights).abs().max().item<double>(), 1e-12);
  out.square().sum().backward();
  EXPECT_GT(layer->distance.grad().abs().min().item<double>(), 0);
}

}  // namespace
}  // namespace fovea::nn
