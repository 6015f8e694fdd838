#include "fovea/recipes/three_tissues.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "fovea/nn/head_temperature.h"
#include "fovea/ops/attention.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace {
constexpr std::array<int64_t, kTissues> kClusters = {8, 4, 2};
constexpr std::array<double, kTissues> kSpreadDegrees = {4, 12, 35};
constexpr double kNoise = 0.5, kFirstBeta = 5;
constexpr int64_t kTissueFlag = 6, kValue = 9, kQueryFlag = 10;

/// One attention layer without biases, from the query to the vectors: the first three numbers of its output are the
/// answer.
struct Layer {
  Layer(int64_t heads, bool learns_beta, at::Generator generator)
      : heads(heads), temperature(nn::HeadTemperatureOptions(heads).initial_beta(kFirstBeta)) {
    for (torch::Tensor* weight : {&to_q, &to_k, &to_v, &to_out}) {
      *weight = torch::randn({kTissueFeatures, kTissueFeatures}, generator, torch::kFloat32) /
                std::sqrt(double(kTissueFeatures));
      parameters.push_back(weight->requires_grad_());
    }
    temperature->logit_scale.requires_grad_(learns_beta);
    if (learns_beta) parameters.push_back(temperature->logit_scale);
  }

  // [B,H,N,C] of unit length
  torch::Tensor directions(const torch::Tensor& x, const torch::Tensor& weight) const {
    const auto y = split(torch::matmul(x, weight));
    return y / y.norm(2, -1, /*keepdim=*/true).clamp_min(1e-12);
  }
  torch::Tensor split(const torch::Tensor& y) const {  // b n (h c) -> b h n c
    return y.view({y.size(0), y.size(1), heads, kTissueFeatures / heads}).transpose(1, 2);
  }

  // ablated: a head that says its mean over the scans; negative: none.
  torch::Tensor answer(const TissueScans& scans, int64_t ablated = -1) {
    const auto q = temperature(directions(scans.query, to_q)), k = directions(scans.vectors, to_k);
    auto out = std::get<0>(
        ops::attention(q, k, split(torch::matmul(scans.vectors, to_v)), {}, {}, /*causal=*/false, /*scale=*/1.0));
    if (ablated >= 0) out.select(1, ablated).copy_(out.select(1, ablated).mean(0, /*keepdim=*/true));
    return torch::matmul(out.transpose(1, 2).reshape({-1, kTissueFeatures}), to_out).slice(1, 0, kTissues);
  }

  // Share of each head's attention on each tissue, mean over the scans: [H,3].
  torch::Tensor attention_shares(const TissueScans& scans) {
    const auto q = temperature(directions(scans.query, to_q)), k = directions(scans.vectors, to_k);
    const auto weights = ops::attention_rows(q, k, torch::zeros({1}, torch::kInt64), {}, {}, /*scale=*/1.0);
    return weights.view({-1, heads, kTissues, kTissueTokens}).sum(-1).mean(0);
  }

  int64_t heads;
  torch::Tensor to_q, to_k, to_v, to_out;  // [E,E]
  nn::HeadTemperature temperature;
  std::vector<torch::Tensor> parameters;
};

std::array<double, kTissues> numbers(const torch::Tensor& t) {
  std::array<double, kTissues> a;
  for (int i = 0; i < kTissues; ++i) a[i] = t[i].item<double>();
  return a;
}

torch::Tensor errors(Layer& layer, const TissueScans& scans, int64_t ablated = -1) {
  return (layer.answer(scans, ablated) - scans.values).square().mean(0);
}

TissueLayer describe(Layer& layer, const TissueScans& scans) {
  TissueLayer d{numbers(errors(layer, scans))};
  for (const auto& p : layer.parameters) d.parameters += p.numel();
  return d;
}
}  // namespace

TissueScans draw_tissue_scans(int64_t count, at::Generator generator) {
  const auto f32 = torch::TensorOptions(torch::kFloat32);
  TissueScans scans{torch::zeros({count, kTissues * kTissueTokens, kTissueFeatures}),
                    torch::zeros({count, 1, kTissueFeatures}), torch::zeros({count, kTissues})};
  scans.query.select(2, kQueryFlag).fill_(1);
  for (int t = 0; t < kTissues; ++t) {
    const double spread = kSpreadDegrees[t] * std::numbers::pi / 180, apart = 2 * std::numbers::pi / kClusters[t];
    const auto cluster = torch::arange(kTissueTokens, torch::kInt64).remainder(kClusters[t]);
    const auto turn = torch::rand({count, 1}, generator, f32) * (2 * std::numbers::pi);
    const auto angle = turn + cluster * apart + torch::randn({count, kTissueTokens}, generator, f32) * spread;
    const auto value = torch::randn({count, kClusters[t]}, generator, f32);
    auto rows = scans.vectors.slice(1, t * kTissueTokens, (t + 1) * kTissueTokens);
    rows.select(2, 2 * t).copy_(angle.cos()), rows.select(2, 2 * t + 1).copy_(angle.sin());
    rows.select(2, kTissueFlag + t).fill_(1);
    rows.select(2, kValue)
        .copy_(value.index_select(1, cluster) + torch::randn({count, kTissueTokens}, generator, f32) * kNoise);
    const auto asked = torch::randint(kClusters[t], {count, 1}, generator, torch::TensorOptions(torch::kInt64));
    const auto place = turn + asked * apart + torch::randn({count, 1}, generator, f32) * (spread / 2);
    scans.query.select(2, 2 * t).copy_(place.cos()), scans.query.select(2, 2 * t + 1).copy_(place.sin());
    scans.values.select(1, t).copy_(value.gather(1, asked).squeeze(1));
  }
  return scans;
}

TissueHeads learn_three_tissues(uint64_t seed) {
  constexpr int64_t kSteps = 1500, kBatch = 64, kFresh = 4096;
  constexpr double kRate = 1e-2;
  const OneThread one_thread;
  auto generator = at::detail::createCPUGenerator(seed);
  Layer three(3, /*learns_beta=*/true, generator), one(1, /*learns_beta=*/true, generator),
      shared(3, /*learns_beta=*/false, generator);
  const std::array<Layer*, 3> layers = {&three, &one, &shared};
  std::vector<torch::optim::Adam> optimizers;
  for (const Layer* layer : layers) optimizers.emplace_back(layer->parameters, torch::optim::AdamOptions(kRate));
  for (int64_t step = 0; step < kSteps; ++step) {
    const TissueScans scans = draw_tissue_scans(kBatch, generator);
    const double rate = kRate * std::min(1.0, 2 * (1 - double(step) / kSteps));
    for (size_t i = 0; i < layers.size(); ++i) {
      for (auto& group : optimizers[i].param_groups()) group.options().set_lr(rate);
      optimizers[i].zero_grad();
      errors(*layers[i], scans).mean().backward();
      optimizers[i].step();
    }
  }

  torch::NoGradGuard no_grad;
  const TissueScans fresh = draw_tissue_scans(kFresh, generator);
  TissueHeads found;
  found.three = describe(three, fresh), found.one = describe(one, fresh), found.shared = describe(shared, fresh);
  found.beta_of_one = one.temperature->beta()[0].item<double>();
  const auto shares = three.attention_shares(fresh);
  const auto favourite = shares.argmax(1);
  const auto intact = errors(three, fresh);
  for (int64_t head = 0; head < kTissues; ++head) {
    const auto tissue = favourite[head].item<int64_t>();
    found.beta[tissue] = three.temperature->beta()[head].item<double>();
    found.tau[tissue] = three.temperature->tau()[head].item<double>();
    found.purity[tissue] = numbers(shares[head]);
    found.ablation[tissue] = numbers(errors(three, fresh, head) - intact);
  }
  found.each_has_its_own = std::all_of(found.beta.begin(), found.beta.end(), [](double beta) { return beta > 0; });
  return found;
}

}  // namespace fovea::recipes
