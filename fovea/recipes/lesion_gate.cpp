#include "fovea/recipes/lesion_gate.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "fovea/nn/cbam.h"
#include "fovea/nn/convolution.h"
#include "fovea/ops/spatial_gate.h"
#include "fovea/recipes/one_thread.h"
#include "fovea/train/classification_metrics.h"

namespace fovea::recipes {

namespace {
constexpr int64_t kWidth = 8;
constexpr int64_t kUngatedWidth = 15;  // 7 more, of 9 parameters each: a gate of k = 3 has 56
constexpr double kBelowTheShare = 1;   // of the read-out's first bias, natural logarithm
constexpr double kContrast = 1, kSmallestRadius = 2.5, kLargestRadius = 4.5;

double uniform(double low, double high, at::Generator generator) {
  return torch::empty({1}, torch::kFloat64).uniform_(low, high, generator).item<double>();
}

struct LesionNet : torch::nn::Module {
  explicit LesionNet(const LesionArm& arm) : arm(arm) {
    const int64_t hidden = arm.kernel > 0 ? kWidth : kUngatedWidth;
    first = register_module("first", nn::Convolution(nn::ConvolutionOptions(1, kWidth, 3)));
    second = register_module("second", nn::Convolution(nn::ConvolutionOptions(kWidth, hidden, 1)));
    read = register_module("read", nn::Convolution(nn::ConvolutionOptions(hidden, 1, 1).bias(true)));
    if (arm.kernel > 0) gate = register_module("gate", nn::SpatialGate(nn::SpatialGateOptions().kernel(arm.kernel)));
  }

  torch::Tensor features(const torch::Tensor& scans) { return second->normed(first->normed(scans, kSlope), kSlope); }
  torch::Tensor logits(const torch::Tensor& scans) {
    const auto maps = features(scans);
    if (!gate) return read(maps);
    return read(arm.other_scan ? gate->map(maps).roll(1, 0) * maps : gate(maps));
  }

  static constexpr double kSlope = 0.01;
  LesionArm arm;
  nn::Convolution first{nullptr}, second{nullptr}, read{nullptr};
  nn::SpatialGate gate{nullptr};
};

void initialise(LesionNet& net, int64_t edge, at::Generator generator) {
  torch::NoGradGuard no_grad;
  for (auto& item : net.named_parameters())
    if (auto p = item.value(); p.dim() > 1) p.normal_(0, 1 / std::sqrt(double(p[0].numel())), generator);
  if (net.gate) net.gate->weight.abs_();  // open where features are large
  // The gradient of a map m is (w.x)(p - y) of a read-out w: where w is negative on lesions the gate closes over them, and
  // then w hardly sees them again. So w begins at 0, which moves no gate, and p below the share of the lesions (a prior as
  // Lin et al. 2017, arXiv:1708.02002, section 4.1): the first steps then lift lesions instead of pushing all else down.
  const double share = draw_lesion_scans(16, edge, generator).mask.mean().item<double>();
  net.read->conv->weight.zero_();
  net.read->conv->bias.fill_(std::log(share / (1 - share)) - kBelowTheShare);
}

torch::Tensor loss_of(const torch::Tensor& logits, const torch::Tensor& mask) {
  const auto p = torch::sigmoid(logits);
  const auto dice = (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1);
  return torch::binary_cross_entropy_with_logits(logits, mask) + 1 - dice;
}

struct Overlap {
  double both = 0, sum = 0;
  void add(const torch::Tensor& logits, const torch::Tensor& mask) {
    const auto found = (logits > 0).to(torch::kFloat32);
    both += (found * mask).sum().item<double>(), sum += (found.sum() + mask.sum()).item<double>();
  }
  void add(const Overlap& more) { both += more.both, sum += more.sum; }
  double dice() const { return sum > 0 ? 2 * both / sum : 1; }
};
// The running statistics of the gate's norm follow at a hundredth a step, too slowly for so short a training: those of the
// last weights.
void settle_norm(LesionNet& net, const LesionScans& scans) {
  const auto weight = net.gate->weight;
  const auto response = torch::conv3d(ops::channel_pool(net.features(scans.voxels)), weight, {}, 1, weight.size(2) / 2);
  for (auto& buffer : net.named_buffers())
    if (buffer.key().ends_with("running_mean"))
      buffer.value().fill_(response.mean());
    else if (buffer.key().ends_with("running_var"))
      buffer.value().fill_(response.var());
}

double auc_of(const torch::Tensor& map, const torch::Tensor& mask) {
  const auto scores = map.flatten().to(torch::kFloat64).contiguous(), inside = (mask.flatten() > 0.5).contiguous();
  const double* score = scores.data_ptr<double>();
  const bool* in = inside.data_ptr<bool>();
  return train::roc_auc(std::vector<double>(score, score + scores.numel()), std::vector<bool>(in, in + inside.numel()));
}

LesionRun evaluate(LesionNet& net, const LesionScans& fresh) {
  const int64_t count = fresh.voxels.size(0);
  LesionRun run;
  for (const auto& p : net.parameters()) run.score.parameters += p.numel();
  Overlap own, other;
  std::vector<torch::Tensor> features, maps;
  for (int64_t b = 0; b < count; ++b) {
    features.push_back(net.features(fresh.voxels.narrow(0, b, 1)));
    if (net.gate) maps.push_back(net.gate->map(features.back()));
  }
  for (int64_t b = 0; b < count; ++b) {
    const auto mask = fresh.mask.narrow(0, b, 1);
    const bool strange = net.arm.other_scan;
    Overlap one;
    one.add(net.read(net.gate ? maps[strange ? (b + 1) % count : b] * features[b] : features[b]), mask);
    own.add(one), run.score.dice_by_scan.push_back(one.dice());
    if (net.gate) other.add(net.read(maps[(b + 1) % count] * features[b]), mask);
  }
  run.score.dice = own.dice();
  const int64_t z = fresh.mask[0][0].sum({1, 2}).argmax().item<int64_t>();
  run.slice = fresh.voxels[0][0][z], run.mask = fresh.mask[0][0][z];
  if (net.gate) {
    for (const auto& p : net.gate->parameters()) run.score.gate_parameters += p.numel();
    const auto all = torch::cat(maps), moved = all.roll(-1, 0);
    run.score.map_auc = auc_of(all, fresh.mask), run.score.auc_other_scan = auc_of(moved, fresh.mask);
    run.score.dice_other_scan = other.dice();
    run.map = maps[0][0][0][z];
  }
  return run;
}
}  // namespace

LesionScans draw_lesion_scans(int64_t count, int64_t edge, at::Generator generator) {
  LesionScans scans{torch::randn({count, 1, edge, edge, edge}, generator, torch::kFloat32),
                    torch::zeros({count, 1, edge, edge, edge})};
  const auto axis = torch::arange(edge, torch::kFloat32);
  const auto distance = [&](const torch::Tensor& from, int dim) {
    std::vector<int64_t> shape(3, 1);
    shape[dim] = edge;
    return (axis - from[dim]).view(shape);
  };
  const auto draw_point = [&](double margin) {
    return torch::empty({3}, torch::kFloat32).uniform_(margin, double(edge) - 1 - margin, generator);
  };
  for (int64_t b = 0; b < count; ++b) {
    const int64_t things = int64_t(uniform(2, 5, generator));
    auto voxels = scans.voxels[b][0], mask = scans.mask[b][0];
    for (int64_t i = 0; i < things; ++i) {
      const double radius = uniform(kSmallestRadius, kLargestRadius, generator);
      const auto centre = draw_point(radius);
      const auto squared = distance(centre, 0).square() + distance(centre, 1).square() + distance(centre, 2).square();
      mask.copy_(torch::maximum(mask, (squared <= radius * radius).to(torch::kFloat32)));
    }
    for (int64_t i = 0; i < things; ++i) {
      const auto through = draw_point(2);
      auto way = torch::randn({3}, generator, torch::kFloat32);
      way = way / way.norm();
      const auto z = distance(through, 0), y = distance(through, 1), x = distance(through, 2);
      const auto along = z * way[0] + y * way[1] + x * way[2];
      const auto across = z.square() + y.square() + x.square() - along.square();
      voxels.add_((across <= 0.8).to(torch::kFloat32) * (1 - mask), 3);
    }
    voxels.add_(mask, kContrast);
  }
  return scans;
}

std::vector<LesionRun> learn_lesion_gate(const std::vector<LesionArm>& arms, uint64_t seed, int64_t edge,
                                         int64_t steps) {
  constexpr double kRate = 1e-2;
  constexpr int64_t kBatch = 2, kFresh = 8;
  const OneThread one_thread;
  auto generator = at::detail::createCPUGenerator(seed);
  std::vector<std::shared_ptr<LesionNet>> nets;
  std::vector<std::unique_ptr<torch::optim::Adam>> optimizers;
  for (const LesionArm& arm : arms) {
    auto same = at::detail::createCPUGenerator(seed + 1000);
    nets.push_back(std::make_shared<LesionNet>(arm));
    initialise(*nets.back(), edge, same);
    optimizers.push_back(
        std::make_unique<torch::optim::Adam>(nets.back()->parameters(), torch::optim::AdamOptions(kRate)));
  }
  for (int64_t step = 0; step < steps; ++step) {
    const LesionScans scans = draw_lesion_scans(kBatch, edge, generator);
    const double rate = kRate * std::min(1.0, 2 * (1 - double(step) / double(steps)));
    for (size_t i = 0; i < nets.size(); ++i) {
      optimizers[i]->param_groups()[0].options().set_lr(rate);
      optimizers[i]->zero_grad();
      loss_of(nets[i]->logits(scans.voxels), scans.mask).backward();
      optimizers[i]->step();
    }
  }

  torch::NoGradGuard no_grad;
  const LesionScans seen = draw_lesion_scans(kFresh, edge, generator),
                    fresh = draw_lesion_scans(kFresh, edge, generator);
  std::vector<LesionRun> runs;
  for (const auto& net : nets) {
    if (net->gate) settle_norm(*net, seen);
    net->eval();
    runs.push_back(evaluate(*net, fresh));
  }
  return runs;
}

}  // namespace fovea::recipes
