#include "fovea/recipes/whom_to_trust.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "fovea/core/rng.h"
#include "fovea/data/radiomics.h"
#include "fovea/nn/class_token.h"
#include "fovea/nn/volume_tokens.h"
#include "fovea/recipes/one_thread.h"
#include "fovea/recipes/patient_inputs.h"

namespace fovea::recipes {

namespace {
constexpr int64_t kEdge = 12, kTraining = 2048, kFresh = 1024, kSteps = 400, kBatch = 32;
constexpr double kRate = 5e-3, kFarthest = 5;  // z-scores beyond are cut
enum class Sides { kBoth, kRadiomics, kScan };

struct Lesions {
  torch::Tensor images;    // [n,1,12,12,12] f32
  torch::Tensor measures;  // [n,107] f32, z-scores
  torch::Tensor answer;    // [n] f32
};

struct RawLesions {
  torch::Tensor images, answer;
  std::vector<std::vector<double>> measures;
};

RawLesions draw(LesionTask task, uint64_t seed, uint32_t first, int64_t count) {
  RawLesions r{torch::empty({count, 1, kEdge, kEdge, kEdge}), torch::empty({count}), {}};
  for (int64_t i = 0; i < count; ++i) {
    const SimulatedLesion lesion = draw_lesion(seed, first + uint32_t(i));
    const auto voxels = lesion.image.as<float>();
    std::copy(voxels.begin(), voxels.end(), r.images.data_ptr<float>() + i * kEdge * kEdge * kEdge);
    r.answer[i] = (task == LesionTask::kTexture ? lesion.rich : lesion.attached) ? 1 : 0;
    std::vector<double> row;
    for (const auto& feature : data::radiomics(lesion.image, lesion.mask)) row.push_back(feature.value);
    r.measures.push_back(std::move(row));
  }
  return r;
}

Lesions scaled(const RawLesions& raw, const ColumnScaling& scaling) {
  const auto features = int64_t(scaling.mean.size());
  Lesions lesions{raw.images / 100, torch::empty({int64_t(raw.measures.size()), features}), raw.answer};
  for (size_t i = 0; i < raw.measures.size(); ++i) {
    const std::vector<double> row = scaling.apply(raw.measures[i]);
    for (int64_t f = 0; f < features; ++f)
      lesions.measures[int64_t(i)][f] = std::clamp(row[size_t(f)], -kFarthest, kFarthest);
  }
  return lesions;
}

// [class token, 27 cells of the scan, radiomics] and a linear map, or the means of both sides through as many weights.
struct NetworkImpl : torch::nn::Module {
  NetworkImpl(int64_t features, bool concatenates) {
    constexpr int64_t kWidth = 16;
    scan = register_module("scan", nn::VolumeTokens(nn::VolumeTokensOptions(1, 4, 2, kWidth)));
    radiomics = register_module("radiomics", torch::nn::Linear(features, kWidth));
    head = register_module("head", torch::nn::Linear(kWidth, 1));
    const auto grid = scan->grid_of({kEdge, kEdge, kEdge});
    place = register_parameter("place", torch::zeros({grid[0] * grid[1] * grid[2], kWidth}));
    if (!concatenates) {
      reader = register_module("reader", nn::ClassToken(nn::ClassTokenOptions(kWidth, /*heads=*/2, /*sources=*/2)));
      return;
    }
    const int64_t hidden = 12 * kWidth * kWidth / (3 * kWidth);  // 12 E^2 weights, as a block has
    late = register_module("late", torch::nn::Sequential(torch::nn::Linear(2 * kWidth, hidden), torch::nn::GELU(),
                                                         torch::nn::Linear(hidden, kWidth),
                                                         torch::nn::LayerNorm(torch::nn::LayerNormOptions({kWidth}))));
  }

  torch::Tensor forward(const torch::Tensor& images, const torch::Tensor& measures, Sides sides) {
    const auto cells = scan->forward(images).tokens + place, token = radiomics(measures).unsqueeze(1);
    if (late) return head(late->forward(torch::cat({cells.mean(1), token.squeeze(1)}, 1)));
    const auto there = [&](bool here) { return torch::full({images.size(0)}, here, torch::kBool); };
    return head(reader->forward({cells, token}, {there(sides != Sides::kRadiomics), there(sides != Sides::kScan)}));
  }

  nn::VolumeTokens scan{nullptr};
  torch::nn::Linear radiomics{nullptr}, head{nullptr};
  torch::Tensor place;
  nn::ClassToken reader{nullptr};
  torch::nn::Sequential late{nullptr};
};
TORCH_MODULE(Network);

torch::Tensor loss_of(const torch::Tensor& outcome, const torch::Tensor& answer) {
  return torch::binary_cross_entropy_with_logits(outcome.squeeze(1), answer);
}

void train(Network& network, const Lesions& lesions, Sides sides, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  torch::optim::AdamW optimizer(network->parameters(), torch::optim::AdamWOptions(kRate).weight_decay(0.01));
  for (int64_t step = 0; step < kSteps; ++step) {
    const double warm = std::min(1.0, double(step + 1) / 20);
    const double rate = kRate * warm * (1 + std::cos(std::numbers::pi * double(step) / kSteps)) / 2;
    for (auto& group : optimizer.param_groups()) group.options().set_lr(rate);
    const auto rows = torch::randint(kTraining, {kBatch}, generator, torch::TensorOptions(torch::kInt64));
    const auto outcome =
        network->forward(lesions.images.index_select(0, rows), lesions.measures.index_select(0, rows), sides);
    optimizer.zero_grad();
    loss_of(outcome, lesions.answer.index_select(0, rows)).backward();
    optimizer.step();
  }
}

TrustScore score(Network& network, const torch::Tensor& images, const torch::Tensor& measures,
                 const torch::Tensor& answer, Sides sides) {
  const auto outcome = network->forward(images, measures, sides);
  const auto right = (outcome.squeeze(1) > 0) == (answer > 0.5);
  return {right.to(torch::kFloat64).mean().item<double>(), loss_of(outcome, answer).item<double>()};
}

int64_t count_parameters(const Network& network) {
  int64_t n = 0;
  for (const auto& p : network->parameters()) n += p.numel();
  return n;
}
}  // namespace

std::string name_of(LesionTask task) { return task == LesionTask::kTexture ? "texture" : "context"; }

SimulatedLesion draw_lesion(uint64_t seed, uint32_t index) {
  constexpr double kMean = 150, kNoise = 20, kGrain = 3;
  Rng rng(seed, 0, index);
  Geometry geometry;
  geometry.shape = {kEdge, kEdge, kEdge};
  SimulatedLesion lesion{Volume::zeros(geometry, DType::kF32), Volume::zeros(geometry, DType::kU8)};
  lesion.rich = rng.chance(0.5f), lesion.attached = rng.chance(0.5f);
  const bool wall_behind = rng.chance(0.5f);
  const double deviation = rng.uniform(30, 90);
  std::array<double, 3> radius, centre;
  for (int a = 0; a < 3; ++a) radius[a] = rng.uniform(2.2f, 3.0f), centre[a] = 5.5 + rng.uniform(-1, 1);
  centre[2] = 5.5;  // leaves room for a gap and the wall on both sides
  const auto image = lesion.image.as<float>();
  const auto mask = lesion.mask.as<uint8_t>();
  int64_t first = kEdge, last = -1;  // of the lesion along x
  for (int64_t z = 0, i = 0; z < kEdge; ++z)
    for (int64_t y = 0; y < kEdge; ++y)
      for (int64_t x = 0; x < kEdge; ++x, ++i) {
        const std::array<double, 3> p = {double(z), double(y), double(x)};
        double distance = 0;
        for (int a = 0; a < 3; ++a) distance += (p[a] - centre[a]) * (p[a] - centre[a]) / (radius[a] * radius[a]);
        image[i] = float(kNoise) * rng.normal();
        if (distance > 1) continue;
        mask[i] = 1, first = std::min(first, x), last = std::max(last, x);
        const double spread = lesion.rich ? std::numbers::sqrt3 * rng.uniform(-1, 1) : rng.chance(0.5f) ? 1 : -1;
        image[i] = float(kMean + deviation * spread + kGrain * rng.normal());
      }
  const int64_t gap = lesion.attached ? 0 : 2, wall = wall_behind ? last + 1 + gap : first - 1 - gap;
  if (wall >= 0 && wall < kEdge)
    for (int64_t row = 0; row < kEdge * kEdge; ++row) image[row * kEdge + wall] = float(kMean + kNoise * rng.normal());
  return lesion;
}

Trust learn_whom_to_trust(LesionTask task, uint64_t seed) {
  const OneThread one_thread;
  const RawLesions raw = draw(task, seed, 0, kTraining);
  const auto features = int64_t(data::radiomics_names().size());
  const ColumnScaling scaling = ColumnScaling::of(raw.measures, size_t(features));  // of the training lesions alone
  const Lesions lesions = scaled(raw, scaling), fresh = scaled(draw(task, seed, kTraining, kFresh), scaling);
  torch::manual_seed(int64_t(seed));
  const auto learn = [&](bool concatenates, Sides sides) {
    Network network(features, concatenates);
    train(network, lesions, sides, seed);
    return network;
  };
  auto both = learn(/*concatenates=*/false, Sides::kBoth), radiomics = learn(false, Sides::kRadiomics),
       scan = learn(false, Sides::kScan), concatenation = learn(/*concatenates=*/true, Sides::kBoth);

  const torch::NoGradGuard no_grad;
  const auto on_fresh = [&](Network& network, Sides sides) {
    return score(network, fresh.images, fresh.measures, fresh.answer, sides);
  };
  Trust trust;
  trust.radiomics_alone = on_fresh(radiomics, Sides::kRadiomics), trust.scan_alone = on_fresh(scan, Sides::kScan);
  trust.concatenation = on_fresh(concatenation, Sides::kBoth);
  trust.parameters = count_parameters(both), trust.concatenation_parameters = count_parameters(concatenation);
  // The next lesion's scan or features: a side that knows nothing, in the range that the network has learnt.
  const auto other_images = fresh.images.roll(1, 0), other_measures = fresh.measures.roll(1, 0);
  const auto without_radiomics = score(both, fresh.images, other_measures, fresh.answer, Sides::kBoth);
  const auto without_scan = score(both, other_images, fresh.measures, fresh.answer, Sides::kBoth);
  both->reader->set_capture(true);
  trust.both = on_fresh(both, Sides::kBoth);
  trust.radiomics_ablation = without_radiomics.cross_entropy_nats - trust.both.cross_entropy_nats;
  trust.scan_ablation = without_scan.cross_entropy_nats - trust.both.cross_entropy_nats;
  const auto shares = both->reader->shares().mean(0);
  trust.on_itself = shares[0].item<double>(), trust.on_scan = shares[1].item<double>();
  trust.on_radiomics = shares[2].item<double>();
  return trust;
}

}  // namespace fovea::recipes
