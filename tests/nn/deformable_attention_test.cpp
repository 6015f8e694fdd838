// MSDeformAttn and DAT against restatements of their papers by grid_sample, in 2-D and 3-D.
#include "fovea/nn/deformable_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fovea/nn/deformable_self_attention.h"

namespace fovea::nn {
namespace {

using testing::HasSubstr;
using torch::Tensor;
namespace F = torch::nn::functional;
const auto kDouble = torch::TensorOptions(torch::kFloat64);

double difference(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "accepted";
}

Tensor sampled(const Tensor& image, const Tensor& grid, bool align_corners) {
  return F::grid_sample(image, grid,
                        F::GridSampleFuncOptions().mode(torch::kBilinear).padding_mode(torch::kZeros).align_corners(align_corners));
}

std::map<std::string, Tensor> copies(const torch::nn::Module& module) {
  std::map<std::string, Tensor> w;
  for (const auto& p : module.named_parameters()) w[p.key()] = p.value().detach().clone().requires_grad_();
  return w;
}

void draw(torch::nn::Module& module, double size) {
  torch::NoGradGuard no_grad;
  for (auto& p : module.parameters()) p.copy_(torch::randn_like(p) * size);
}

// ---- Zhu et al. 2021, equation 3 ------------------------------------------------------------------------------------

Tensor restated(std::map<std::string, Tensor>& w, const MultiScaleDeformableAttentionOptions& o, const Tensor& query,
                const Tensor& reference, const Tensor& input, const Tensor& shapes, const Tensor& mask) {
  const int64_t B = query.size(0), Q = query.size(1), H = o.heads(), L = o.levels(), K = o.points(), D = o.axes(), C = o.dim() / H;
  auto value = torch::linear(input, w["value_proj.weight"], w["value_proj.bias"]);
  if (mask.defined()) value = value * mask.unsqueeze(2).to(torch::kFloat64);
  const auto offsets =
      torch::linear(query, w["sampling_offsets.weight"], w["sampling_offsets.bias"]).view({B, Q, H, L, K, D});
  const auto weights = torch::linear(query, w["attention_weights.weight"], w["attention_weights.bias"])
                           .view({B, Q, H, L * K})
                           .softmax(-1)
                           .view({B, Q, H, L, K});
  auto out = torch::zeros({B * H, C, Q}, kDouble);
  int64_t from = 0;
  for (int64_t l = 0; l < L; ++l) {
    std::vector<int64_t> size;
    for (int64_t d = 0; d < D; ++d) size.push_back(shapes[l][d].item<int64_t>());
    int64_t rows = 1;
    for (const int64_t n : size) rows *= n;
    auto sizes = size;
    sizes.insert(sizes.begin(), {B * H, C});
    const auto image = value.narrow(1, from, rows).view({B, rows, H, C}).permute({0, 2, 3, 1}).reshape(sizes);
    from += rows;
    const auto centre = reference.select(2, l).view({B, Q, 1, 1, -1});
    Tensor at;
    if (reference.size(3) == D) {
      std::vector<double> turned(size.rbegin(), size.rend());
      at = centre + offsets.select(3, l) / torch::tensor(turned, kDouble);
    } else {
      at = centre.narrow(4, 0, D) + offsets.select(3, l) / double(K) * centre.narrow(4, D, D) * 0.5;
    }
    auto grid = (2 * at - 1).permute({0, 2, 1, 3, 4}).reshape({B * H, Q, K, D});
    const auto read = D == 2 ? sampled(image, grid, false) : sampled(image, grid.unsqueeze(3), false).squeeze(4);  // (b h) c q k
    out = out + (read * weights.select(3, l).permute({0, 2, 1, 3}).reshape({B * H, 1, Q, K})).sum(-1);
  }
  out = out.view({B, H * C, Q}).transpose(1, 2);
  return torch::linear(out, w["output_proj.weight"], w["output_proj.bias"]);
}

TEST(MultiScaleDeformableAttention, EqualsItsPaperRestatedByGridSampleForwardAndBackward) {
  torch::manual_seed(0);
  for (const int64_t axes : {2, 3})
    for (const bool boxes : {false, true}) {
      const auto o = MultiScaleDeformableAttentionOptions(24, 4).levels(2).points(3).axes(axes);
      MultiScaleDeformableAttention layer(o);
      layer->to(torch::kFloat64);
      draw(*layer, 0.4);
      const auto shapes = axes == 2 ? torch::tensor({{6, 4}, {3, 5}}, torch::kInt64) : torch::tensor({{3, 4, 2}, {2, 2, 5}}, torch::kInt64);
      const int64_t S = shapes.prod(1).sum().item<int64_t>();
      const auto mask = torch::rand({2, S}) > 0.2;
      const auto query = torch::randn({2, 7, 24}, kDouble), input = torch::randn({2, S, 24}, kDouble),
                 reference = torch::rand({2, 7, 2, boxes ? 2 * axes : axes}, kDouble), upstream = torch::randn({2, 7, 24}, kDouble);
      auto w = copies(*layer);
      std::array<std::array<Tensor, 3>, 2> in;
      for (auto& set : in) set = {query.clone().requires_grad_(), reference.clone().requires_grad_(), input.clone().requires_grad_()};
      const auto got = layer(in[0][0], in[0][1], in[0][2], shapes, mask);
      const auto expected = restated(w, o, in[1][0], in[1][1], in[1][2], shapes, mask);
      EXPECT_LT(difference(got, expected), 1e-12);
      got.backward(upstream), expected.backward(upstream);
      for (int i = 0; i < 3; ++i) EXPECT_LT(difference(in[0][i].grad(), in[1][i].grad()), 1e-11) << i;
      for (const auto& p : layer->named_parameters()) EXPECT_LT(difference(p.value().grad(), w[p.key()].grad()), 1e-10) << p.key();
    }
}

TEST(MultiScaleDeformableAttention, StartsAsRingsWithEvenWeights) {
  MultiScaleDeformableAttention layer(MultiScaleDeformableAttentionOptions(256, 8));
  const auto [offsets, weights] = layer->points(torch::randn({1, 2, 256}));
  EXPECT_EQ(offsets.sizes(), (std::vector<int64_t>{1, 2, 8, 4, 4, 2}));
  EXPECT_TRUE(torch::equal(offsets[0][0], offsets[0][1]));  // whatever the query
  EXPECT_LT(difference(weights, torch::full_like(weights, 1.0 / 16)), 1e-7);
  const float eight[8][2] = {{1, 0}, {1, 1}, {0, 1}, {-1, 1}, {-1, 0}, {-1, -1}, {0, -1}, {1, -1}};
  for (int m = 0; m < 8; ++m)
    for (int k = 0; k < 4; ++k)
      for (int d = 0; d < 2; ++d) EXPECT_NEAR(offsets[0][0][m][2][k][d].item<double>(), (k + 1) * eight[m][d], 1e-6);
  std::vector<std::string> names;
  int64_t count = 0;
  for (const auto& p : layer->named_parameters()) names.push_back(p.key()), count += p.value().numel();
  EXPECT_THAT(names, testing::UnorderedElementsAre("sampling_offsets.weight", "sampling_offsets.bias", "attention_weights.weight",
                                                   "attention_weights.bias", "value_proj.weight", "value_proj.bias",
                                                   "output_proj.weight", "output_proj.bias"));
  EXPECT_EQ(count, 256 * 256 + 256 + 256 * 128 + 128 + 2 * (256 * 256 + 256));
  const auto sphere = spread_directions(27, 3);
  EXPECT_LT(difference(sphere.abs().amax(1), torch::ones({27}, kDouble)), 1e-12);
  EXPECT_LT((sphere / sphere.norm(2, 1, true)).mean(0).norm().item<double>(), 0.05);  // no side is preferred
}

TEST(MultiScaleDeformableAttention, RefusesWhatDoesNotFitInOneLine) {
  EXPECT_THAT(refusal([] { MultiScaleDeformableAttention(MultiScaleDeformableAttentionOptions(10, 4)); }),
              HasSubstr("4 heads do not divide the width 10"));
  MultiScaleDeformableAttention layer(MultiScaleDeformableAttentionOptions(8, 2).levels(1));
  const auto shapes = torch::tensor({{2, 3}}, torch::kInt64);
  EXPECT_THAT(refusal([&] { layer(torch::zeros({1, 4, 8}), torch::zeros({1, 4, 2}), torch::zeros({1, 6, 8}), shapes); }),
              HasSubstr("reference is [1, 4, 2], expected [B,Q,1,2]"));
  EXPECT_THAT(refusal([&] { layer(torch::zeros({1, 4, 8}), torch::zeros({1, 4, 1, 2}), torch::zeros({1, 7, 8}), shapes); }),
              HasSubstr("spatial_shapes hold 6 rows, expected 7"));
  EXPECT_EQ(layer(torch::zeros({1, 0, 8}), torch::zeros({1, 0, 1, 2}), torch::zeros({1, 6, 8}), shapes).size(1), 0);
}

// ---- Xia et al. 2022, 2023 ------------------------------------------------------------------------------------------

Tensor convolved(const Tensor& x, const Tensor& w, const Tensor& b, int64_t stride, int64_t groups) {
  const int64_t padding = w.size(2) / 2;
  return x.dim() == 4 ? torch::conv2d(x, w, b, stride, padding, 1, groups) : torch::conv3d(x, w, b, stride, padding, 1, groups);
}

Tensor linspaced(int64_t n, double from, double to) { return torch::linspace(from, to, n, kDouble); }

Tensor dat(std::map<std::string, Tensor>& w, const DeformableSelfAttentionOptions& o, const Tensor& x) {
  const int64_t B = x.size(0), E = o.dim(), g = o.groups(), H = o.heads(), D = int64_t(o.grid().size()), N = x.flatten(2).size(2);
  const auto project = [&](const std::string& name, const Tensor& t) { return convolved(t, w[name + ".weight"], w[name + ".bias"], 1, 1); };
  const auto q = project("proj_q", x);
  auto grouped = x.sizes().vec();
  grouped[0] = B * g, grouped[1] = E / g;
  auto map = convolved(q.reshape(grouped), w["conv_offset.0.weight"], w["conv_offset.0.bias"], o.stride(), E / g);
  auto last = torch::layer_norm(map.movedim(1, -1), {E / g}, w["conv_offset.1.norm.weight"], w["conv_offset.1.norm.bias"]);
  auto offset = convolved(torch::gelu(last).movedim(-1, 1), w["conv_offset.3.weight"], {}, 1, 1);  // (b g) d ...
  std::vector<Tensor> axes, query_axes;
  std::vector<double> range;
  for (int64_t d = 0; d < D; ++d) {
    const int64_t m = map.size(2 + d), n = o.grid()[d];
    range.push_back(o.range_factor() / double(m - 1));
    query_axes.push_back(linspaced(n, -1, 1));
    if (o.reference() == ReferencePoints::kHalfPixel)
      axes.push_back(linspaced(m, 0.5, double(m) - 0.5) / double(m - 1) * 2 - 1);
    else
      axes.push_back(o.stride() == 1 ? linspaced(n, -1, 1) : [&] {
        std::vector<double> centres;  // of n/m tokens each
        for (int64_t i = 0; i < m; ++i) centres.push_back(((double(i) + 0.5) * double(n) / double(m) - 0.5) / double(n - 1) * 2 - 1);
        return torch::tensor(centres, kDouble);
      }());
  }
  const auto reference = torch::stack(torch::meshgrid(axes, "ij"), -1);  // ... d
  offset = offset.movedim(1, -1);
  const auto place = o.range_factor() < 0 ? (offset + reference).clamp(-1, 1) : offset.tanh() * torch::tensor(range, kDouble) + reference;
  const auto read = sampled(x.reshape(grouped), place.flip(-1), true);  // (b g) c ...
  const int64_t M = read.flatten(2).size(2);
  auto row = std::vector<int64_t>(size_t(D + 2), 1);
  row[0] = B, row[1] = E, row[size_t(D) + 1] = M;
  const auto keys = project("proj_k", read.reshape(row)).reshape({B * H, E / H, M}), values = project("proj_v", read.reshape(row)).reshape({B * H, E / H, M});
  auto scores = torch::einsum("bcm,bcn->bmn", {q.reshape({B * H, E / H, N}), keys}) / std::sqrt(double(E / H));
  const auto queries = torch::stack(torch::meshgrid(query_axes, "ij"), -1).view({1, N, 1, D});
  const auto displacement = queries - place.reshape({B * g, 1, M, D});
  if (o.bias() == DeformedBias::kTable) {
    auto sizes = w["rpe_table"].sizes().vec();
    sizes.insert(sizes.begin(), B);
    auto table_sizes = sizes;
    table_sizes.erase(table_sizes.begin());
    table_sizes[0] = H / g, table_sizes.insert(table_sizes.begin(), B * g);
    const auto table = w["rpe_table"].unsqueeze(0).expand(sizes).reshape(table_sizes);
    auto grid = (displacement * 0.5).flip(-1);
    if (D == 3) grid = grid.unsqueeze(3);
    scores = scores + sampled(table, grid, true).reshape({B * H, N, M});
  } else if (o.bias() == DeformedBias::kLog) {
    const auto d4 = displacement * 4;
    const auto spaced = d4.sign() * torch::log2(d4.abs() + 1.0) / std::log2(8.0);
    const auto hidden = torch::relu(torch::linear(spaced, w["rpe_table.0.weight"], w["rpe_table.0.bias"]));
    scores = scores + torch::linear(hidden, w["rpe_table.2.weight"]).permute({0, 3, 1, 2}).reshape({B * H, N, M});
  }
  auto out = torch::einsum("bmn,bcn->bcm", {scores.softmax(2), values}).reshape(x.sizes());
  if (o.bias() == DeformedBias::kDepthwise) out = out + convolved(q, w["rpe_table.weight"], w["rpe_table.bias"], 1, E);
  return project("proj_out", out);
}

TEST(DeformableSelfAttention, EqualsItsPaperRestatedByGridSampleForwardAndBackward) {
  torch::manual_seed(1);
  for (const std::vector<int64_t>& grid : {std::vector<int64_t>{6, 9}, std::vector<int64_t>{3, 4, 6}})
    for (const DeformedBias bias : {DeformedBias::kNone, DeformedBias::kTable, DeformedBias::kLog, DeformedBias::kDepthwise})
      for (const double range : {2.0, -1.0})
        for (const ReferencePoints reference : {ReferencePoints::kCentres, ReferencePoints::kHalfPixel}) {
          if (reference == ReferencePoints::kHalfPixel && bias != DeformedBias::kTable) continue;
          const auto o = DeformableSelfAttentionOptions(grid, 12, 4).groups(2).range_factor(range).bias(bias).reference(reference).stride(
              reference == ReferencePoints::kHalfPixel ? 2 : 1);
          DeformableSelfAttention layer(o);
          layer->to(torch::kFloat64);
          draw(*layer, 0.3);
          auto w = copies(*layer);
          std::vector<int64_t> sizes = grid;
          sizes.insert(sizes.begin(), {2, 12});
          auto a = torch::randn(sizes, kDouble), b = a.clone();
          a.requires_grad_(), b.requires_grad_();
          const auto got = layer(a), expected = dat(w, o, b);
          EXPECT_LT(difference(got, expected), 1e-12) << int(bias) << " range " << range;
          const auto upstream = torch::randn(sizes, kDouble);
          got.backward(upstream), expected.backward(upstream);
          EXPECT_LT(difference(a.grad(), b.grad()), 1e-10);
          for (const auto& p : layer->named_parameters()) {
            ASSERT_TRUE(w[p.key()].grad().defined()) << p.key();
            EXPECT_LT(difference(p.value().grad(), w[p.key()].grad()), 1e-10) << p.key();
          }
        }
}

TEST(DeformableSelfAttention, KeysStandOnTokensUntilTheyMoveAndHalfAPixelOffInTheCompatibleForm) {
  for (const ReferencePoints reference : {ReferencePoints::kCentres, ReferencePoints::kHalfPixel}) {
    DeformableSelfAttention layer(DeformableSelfAttentionOptions({4, 6}, 8, 2).range_factor(2).reference(reference));
    {
      torch::NoGradGuard no_grad;
      for (auto& p : layer->named_parameters())
        if (p.key() == "conv_offset.3.weight") p.value().zero_();
    }
    const auto [from, to] = layer->places(torch::randn({1, 8, 4, 6}));
    EXPECT_LT(difference(to[0][0], from), 1e-6);  // no offset: no move
    const double off = reference == ReferencePoints::kHalfPixel ? 0.5 : 0;
    for (int64_t i = 0; i < 24; ++i) {
      EXPECT_NEAR(from[i][0].item<double>(), double(i / 6) + off, 1e-6);
      EXPECT_NEAR(from[i][1].item<double>(), double(i % 6) + off, 1e-6);
    }
  }
  // Keys of 2x2 tokens stand in their middle.
  DeformableSelfAttention coarse(DeformableSelfAttentionOptions({4, 6}, 8, 2).stride(2));
  EXPECT_NEAR(coarse->places(torch::randn({1, 8, 4, 6})).first[0][0].item<double>(), 0.5, 1e-6);
}

TEST(DeformableSelfAttention, RefusesWhatDoesNotFitInOneLine) {
  EXPECT_THAT(refusal([] { DeformableSelfAttention(DeformableSelfAttentionOptions({4, 4}, 8, 2).groups(3)); }),
              HasSubstr("3 groups, 2 heads, width 8, expected each to divide the next"));
  EXPECT_THAT(refusal([] { DeformableSelfAttention(DeformableSelfAttentionOptions({4}, 8, 2)); }), HasSubstr("grid has 1 axes"));
  EXPECT_THAT(refusal([] { DeformableSelfAttention(DeformableSelfAttentionOptions({4, 4}, 8, 2))->forward(torch::zeros({1, 8, 4, 5})); }),
              HasSubstr("expected [B,8,...] on the grid [4, 4]"));
}

}  // namespace
}  // namespace fovea::nn
