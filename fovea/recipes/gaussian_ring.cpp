#include "fovea/recipes/gaussian_ring.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "fovea/nn/deformable_attention.h"
#include "fovea/ops/deformable_attention.h"
#include "fovea/recipes/gaussian_tumour.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace {
constexpr int64_t kPoints = 8, kBatch = 64;

// Where f is largest on [0, 4], in steps of 1e-4.
template <class F>
double argmax(F&& f) {
  double best = 0, at = 0;
  for (int i = 0; i <= 40000; ++i)
    if (const double r = 1e-4 * i, value = f(r); value > best) best = value, at = r;
  return at;
}

/// One head of eight points on the scan itself, and what is said from their readings.
struct Reader {
  nn::MultiScaleDeformableAttention layer;
  torch::nn::Linear from_points{nullptr}, from_features{nullptr};

  Reader(int64_t features, int64_t answers, at::Generator generator)
      : layer(nn::MultiScaleDeformableAttentionOptions(features, 1).levels(1).points(kPoints)),
        from_points(kPoints, answers),
        from_features(torch::nn::LinearOptions(features, answers).bias(false)) {
    torch::NoGradGuard no_grad;
    for (const auto& group : {places(), words()})
      for (const auto& p : group) p.zero_();
    // Offsets in proportion to the first feature, the scale: 0.8 to 2 sigma at the start.
    const auto start = torch::rand({kPoints, 1}, generator, torch::kFloat32) * 1.2 + 0.8;
    const auto directions = nn::spread_directions(kPoints, 2);
    const auto unit = directions / directions.norm(2, 1, /*keepdim=*/true);
    layer->sampling_offsets->weight.select(1, 0).copy_((start * unit.to(torch::kFloat32) * kScaleUnit_vox).flatten());
  }
  std::vector<torch::Tensor> places() { return layer->sampling_offsets->parameters(); }
  std::vector<torch::Tensor> words() {
    auto all = layer->attention_weights->parameters();
    for (const auto& p : from_points->parameters()) all.push_back(p);
    for (const auto& p : from_features->parameters()) all.push_back(p);
    return all;
  }

  struct Reading {
    torch::Tensor weighted;          // [B,8]: weight times what the point sees
    torch::Tensor offsets, weights;  // [B,8,2] in voxels, [B,8]
  };
  /// scans [B,S]; noise: standard deviation of a point's reading.
  Reading read(const Tumours& t, const torch::Tensor& scans, int64_t edge, double noise, at::Generator generator) {
    const int64_t B = t.features.size(0);
    const auto [offsets, weights] = layer->points(t.features.unsqueeze(1));
    Reading r{{}, offsets.view({B, kPoints, 2}), weights.view({B, kPoints})};
    // Each point as a head of its own, so that readings stay apart.
    const auto at = (t.at_vox.view({B, 1, 1, 1, 1, 2}) + r.offsets.view({B, 1, kPoints, 1, 1, 2}) + 0.5) / double(edge);
    const auto value = scans.view({B, edge * edge, 1, 1}).expand({B, edge * edge, kPoints, 1});
    r.weighted = ops::deformable_attention(value, torch::tensor({{edge, edge}}, torch::kInt64), at,
                                           r.weights.view({B, 1, kPoints, 1, 1}))
                     .view({B, kPoints});
    if (noise > 0) r.weighted = r.weighted + r.weights * noise * torch::randn({B, kPoints}, generator, torch::kFloat32);
    return r;
  }
  torch::Tensor answer(const Reading& reading, const Tumours& t) {
    return from_points(reading.weighted * double(kPoints)) + from_features(t.features);
  }
};

torch::Tensor loss_of(RingGoal goal, Reader& reader, const Reader::Reading& reading, const Tumours& t) {
  if (goal == RingGoal::kIntensity) return 1 - reading.weighted.sum(1).mean();
  return (reader.answer(reading, t) - (goal == RingGoal::kPosition ? t.moved : t.grown)).square().mean();
}
}  // namespace

std::string name_of(RingGoal goal) {
  return goal == RingGoal::kPosition ? "position" : goal == RingGoal::kSize ? "size" : "intensity";
}

BestRadii best_radii() {
  const auto tumour = [](double r) { return std::exp(-r * r / 2); };  // r in sigma
  return {argmax([&](double r) { return r * tumour(r); }), argmax([&](double r) { return r * r * tumour(r); }),
          argmax([&](double r) { return 4 * M_PI * r * r * tumour(r); }), argmax(tumour)};
}

LearnedRing learn_ring(RingGoal goal, const std::vector<double>& sigmas_vox, uint64_t seed, int64_t steps, double only_vox) {
  constexpr double kRate = 0.03, kPlaceRate = kScaleUnit_vox * kRate;  // offsets are so much larger than other weights
  constexpr int64_t kFresh = 512;
  const OneThread one_thread;
  auto generator = at::detail::createCPUGenerator(seed);
  TumourOptions options;
  // What the exact radii assume. Small changes: a reading is linear in them. Noise of each reading: that of voxels would be
  // shared by points that lie close, and push those of small tumours outwards. What has changed since the earlier scan:
  // what a reading is at rest depends on where in its voxel a point lies, which in small tumours is more than the change.
  options.move = goal == RingGoal::kPosition ? 0.05 : 0;
  options.grow = goal == RingGoal::kSize ? 0.05 : 0;
  options.noise = 0;
  const double noise = goal == RingGoal::kPosition ? 0.025 : goal == RingGoal::kSize ? 0.05 : 0;
  if (only_vox > 0) options.sigma_vox = only_vox;
  const auto scans = [&](const Tumours& t) { return goal == RingGoal::kIntensity ? t.voxels : t.voxels - t.earlier; };
  Reader reader(kTumourFeatures, goal == RingGoal::kPosition ? 2 : 1, generator);
  torch::optim::Adam optimizer({torch::optim::OptimizerParamGroup(reader.words()), torch::optim::OptimizerParamGroup(reader.places())},
                               torch::optim::AdamOptions(kRate));
  for (int64_t step = 0; step < steps; ++step) {
    const Tumours t = draw_tumours(kBatch, options, generator);
    const double left = 1 - double(step) / double(steps);
    optimizer.param_groups()[0].options().set_lr(kRate * left);
    // A point whose reading is taken with the wrong sign flees to the centre, where it feels nothing and stays: the points
    // stand until what they say is understood.
    optimizer.param_groups()[1].options().set_lr(left > 0.9 ? 0 : kPlaceRate * left * left);
    optimizer.zero_grad();
    loss_of(goal, reader, reader.read(t, scans(t), options.edge_vox, noise, generator), t).backward();
    optimizer.step();
  }

  torch::NoGradGuard no_grad;
  LearnedRing found;
  const Tumours fresh = draw_tumours(kFresh, options, generator);
  found.error = loss_of(goal, reader, reader.read(fresh, scans(fresh), options.edge_vox, noise, generator), fresh).item<double>();
  for (const double sigma : sigmas_vox) {
    auto one = options;
    one.sigma_vox = sigma;
    const Tumours t = draw_tumours(1, one, generator);
    const auto reading = reader.read(t, scans(t), options.edge_vox, noise, generator);
    RingPoints points{sigma, (reading.offsets.norm(2, -1) * reading.weights).sum().item<double>() / sigma, {}, {}, {}};
    for (int64_t k = 0; k < kPoints; ++k) {
      points.x_vox.push_back(reading.offsets[0][k][0].item<double>()), points.y_vox.push_back(reading.offsets[0][k][1].item<double>());
      points.weights.push_back(reading.weights[0][k].item<double>());
    }
    found.tumours.push_back(points);
  }
  return found;
}

}  // namespace fovea::recipes
