#include "fovea/recipes/layer_experiments.h"

#include <algorithm>
#include <cmath>

#include "fovea/nn/patch_embedding_block.h"
#include "fovea/nn/qk_norm.h"
#include "fovea/nn/transformer_block.h"
#include "fovea/ops/attention.h"
#include "fovea/recipes/patch_experiments.h"

namespace fovea::recipes {

namespace {
double largest(const torch::Tensor& difference) { return difference.abs().max().item<double>(); }

void fill(torch::nn::Module& layer, double deviation, at::Generator generator) {
  for (auto& parameter : layer.parameters()) parameter.normal_(0, deviation, generator);
}

// <q_i, k_j> after their means are taken away: [N,M].
torch::Tensor centred_products(const torch::Tensor& q, const torch::Tensor& k) {
  return torch::matmul(q - q.mean(-1, /*keepdim=*/true), (k - k.mean(-1, /*keepdim=*/true)).transpose(-1, -2));
}
}  // namespace

int64_t attention_parameters(int64_t width, int64_t heads, bool qkv_bias) {
  nn::SelfAttention layer(nn::SelfAttentionOptions(width, heads).qkv_bias(qkv_bias));
  int64_t n = 0;
  for (const auto& p : layer->parameters()) n += p.numel();
  return n;
}

double heads_against_single_runs(int64_t width, int64_t heads, uint64_t seed) {
  torch::NoGradGuard no_grad;
  auto generator = at::detail::createCPUGenerator(seed);
  nn::SelfAttention layer(nn::SelfAttentionOptions(width, heads).qkv_bias(true));
  fill(*layer, 1 / std::sqrt(double(width)), generator);
  const int64_t tokens = 50, channels = width / heads;
  const auto x = torch::randn({2, tokens, width}, generator, torch::kFloat32);
  const auto qkv = layer->qkv(x).view({2, tokens, 3, heads, channels});
  std::vector<torch::Tensor> single;
  for (int64_t h = 0; h < heads; ++h) {
    const auto one = [&](int64_t part) { return qkv.select(2, part).select(2, h).unsqueeze(1); };  // [B,1,N,C]
    single.push_back(std::get<0>(ops::attention(one(0), one(1), one(2))).squeeze(1));
  }
  return largest(layer->forward(x) - layer->out_proj(torch::cat(single, -1)));
}

Equivariance permute_tokens(uint64_t seed) {
  torch::NoGradGuard no_grad;
  auto generator = at::detail::createCPUGenerator(seed);
  const auto x = torch::randn({3, 1, 4, 60, 16}, generator, torch::kFloat32),
             bias = torch::randn({1, 4, 60, 60}, generator, torch::kFloat32);
  const auto order = torch::randperm(60, generator, torch::TensorOptions(torch::kInt64));
  const auto run = [&](const torch::Tensor& t, const std::optional<torch::Tensor>& b) {
    return std::get<0>(ops::attention(t[0], t[1], t[2], b));
  };
  const auto moved = x.index_select(3, order);
  const auto plain = run(x, {}), plain_moved = run(moved, {});
  Equivariance e;
  e.unbiased = largest(plain_moved - plain.index_select(2, order));
  e.unmoved = largest(plain_moved - plain);
  e.biased = largest(run(moved, bias) - run(x, bias).index_select(2, order));
  e.pooled = largest(plain_moved.mean(2) - plain.mean(2));
  return e;
}

ImplicitTemperature implicit_temperature(int64_t channels, uint64_t seed, double sigma_q, double sigma_k) {
  torch::NoGradGuard no_grad;
  auto generator = at::detail::createCPUGenerator(seed);
  const double root = std::sqrt(double(channels));
  nn::QkNorm norm(nn::QkNormOptions(channels).affine(false).epsilon(0));
  nn::QkNorm guarded(nn::QkNormOptions(channels).affine(false).epsilon(1e-12));  // takes constant vectors, too
  const auto scores_of = [&](nn::QkNorm& layer, const torch::Tensor& q, const torch::Tensor& k) {
    const auto [nq, nk] = layer->forward(q, k);
    return torch::matmul(nq, nk.transpose(-1, -2)) / root;
  };
  const auto scores = [&](const torch::Tensor& q, const torch::Tensor& k) { return scores_of(norm, q, k); };
  ImplicitTemperature t;
  t.bound = root;
  const auto draw = [&](double mean, double deviation) {
    return torch::randn({200, channels}, generator, torch::kFloat64) * deviation + mean;
  };
  {
    const auto q = draw(0.5, sigma_q), k = draw(-0.1, sigma_k);
    const auto temperature = norm->implicit_temperature(q, k);
    const auto s = scores(q, k), products = centred_products(q, k);
    const auto norms =
        torch::matmul((q - q.mean(-1, true)).norm(2, -1, true), (k - k.mean(-1, true)).norm(2, -1, true).t());
    t.identity = largest(s - products / (temperature * root));
    t.correlation = largest(s - root * products / norms);
    t.mean_temperature = temperature.mean().item<double>();
    t.change = largest(scores_of(guarded, 100 * q, 100 * k) - scores_of(guarded, q, k));
  }
  {
    const auto q = draw(0, 1), ones = torch::ones({1, channels}, q.options());
    auto spike = torch::zeros({1, channels}, q.options());
    spike.index_put_({0, 0}, 1e9);
    const auto k = torch::cat({draw(0, 1), q, -q, ones, spike, 1e9 * draw(2, 1)});
    t.largest_score = largest(scores_of(guarded, torch::cat({q, ones, spike}), k));
  }
  {
    // Queries and keys that a layer makes of a scan's patches, in the float that networks compute in.
    const auto voxels = sample_scan(seed).voxels.slice(0, 40, 104).slice(1, 60, 124).slice(2, 50, 114);
    nn::PatchEmbeddingBlock embed(nn::PatchEmbeddingOptions(1, {64, 64, 64}, {8, 8, 8}, 4 * channels));
    nn::SelfAttention layer(nn::SelfAttentionOptions(4 * channels, 4));
    for (torch::nn::Module* m : std::initializer_list<torch::nn::Module*>{embed.get(), layer.get()})
      fill(*m, 0.05, generator);
    const auto tokens = embed->forward((voxels / voxels.max()).reshape({1, 1, 64, 64, 64}))[0];  // [N,E]
    const auto qkv = layer->qkv(tokens).view({tokens.size(0), 3, 4, channels});
    for (int64_t h = 0; h < 4; ++h) {
      const auto q = qkv.select(1, 0).select(1, h), k = qkv.select(1, 1).select(1, h);
      t.activations = std::max(
          t.activations, largest(scores(q, k) - centred_products(q, k) / (norm->implicit_temperature(q, k) * root)));
    }
  }
  return t;
}

}  // namespace fovea::recipes
