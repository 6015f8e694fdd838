// A4, spatial attention: counts, the definition, what it costs beside a convolution, and a learned map on made-up lesions.
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <functional>
#include <vector>

#include "fovea/nn/cbam.h"
#include "fovea/ops/conv3d.h"
#include "fovea/ops/spatial_gate.h"
#include "fovea/recipes/check.h"
#include "fovea/recipes/lesion_gate.h"
#include "fovea/recipes/one_thread.h"
#include "fovea/recipes/spatial_counts.h"
#include "fovea/report/text.h"
#include "fovea/train/survival_metrics.h"

namespace fovea::recipes {

namespace {
using report::printed;

void check_counts(CheckResult& result) {
  struct Row {
    int64_t kernel, axes;
    double weights;
  };
  for (const Row& row : {Row{1, 2, 2}, Row{3, 2, 18}, Row{7, 2, 98}, Row{3, 3, 54}, Row{7, 3, 686}})
    result.equal(printed("weights of the spatial gate, k = %d, %d-D", int(row.kernel), int(row.axes)),
                 double(gate_weights(row.kernel, row.axes)), row.weights);
  const CbamCounts counts = cbam_of_resnet50();
  result.equal("parameters of 16 CBAM in ResNet-50", double(counts.all), 2532592);
  result.equal("of these the spatial gates (batch norms included)", double(counts.spatial), 1600);
  result.equal("ResNet-50 (25 557 032) with them", double(25557032 + counts.all), 28089624);
}

// Sum over all taps and channels, voxel by voxel, in double, against the layer in float.
double against_loops(int64_t axes, int64_t kernel, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  nn::SpatialGate gate(nn::SpatialGateOptions().kernel(kernel).axes(axes));
  gate->eval();
  torch::NoGradGuard no_grad;
  gate->weight.normal_(0, 0.1, generator);
  const auto x = torch::randn(axes == 2 ? std::vector<int64_t>{1, 20, 11, 13} : std::vector<int64_t>{1, 20, 6, 7, 9}, generator,
                              torch::kFloat32);
  const auto map = gate->map(x).to(torch::kFloat64).view(-1);
  const auto voxels = (axes == 2 ? x.unsqueeze(2) : x).to(torch::kFloat64)[0];
  const auto taps = (axes == 2 ? gate->weight.unsqueeze(2) : gate->weight).to(torch::kFloat64)[0].contiguous();
  const int64_t C = voxels.size(0), Z = voxels.size(1), Y = voxels.size(2), X = voxels.size(3);
  const auto v = voxels.accessor<double, 4>(), w = taps.accessor<double, 4>();
  double worst = 0;
  for (int64_t z = 0; z < Z; ++z)
    for (int64_t y = 0; y < Y; ++y)
      for (int64_t x0 = 0; x0 < X; ++x0) {
        double logit = 0;
        for (int64_t tz = 0; tz < taps.size(1); ++tz)
          for (int64_t ty = 0; ty < kernel; ++ty)
            for (int64_t tx = 0; tx < kernel; ++tx) {
              const int64_t uz = z + tz - taps.size(1) / 2, uy = y + ty - kernel / 2, ux = x0 + tx - kernel / 2;
              if (uz < 0 || uz >= Z || uy < 0 || uy >= Y || ux < 0 || ux >= X) continue;
              double largest = v[0][uz][uy][ux], mean = 0;
              for (int64_t c = 0; c < C; ++c) largest = std::max(largest, v[c][uz][uy][ux]), mean += v[c][uz][uy][ux] / double(C);
              logit += w[0][tz][ty][tx] * largest + w[1][tz][ty][tx] * mean;
            }
        const double expected = 1 / (1 + std::exp(-logit / std::sqrt(1 + 1e-5)));  // the norm's first statistics: 0 and 1
        worst = std::max(worst, std::abs(expected - map[(z * Y + y) * X + x0].item<double>()));
      }
  return worst;
}

// The least processor time of several runs of each, in turns: what else the machine does counts less than in seconds on
// the wall.
std::vector<double> least_cpu_ms(const std::vector<std::function<void()>>& works, int runs) {
  std::vector<double> least(works.size(), INFINITY);
  for (int i = 0; i <= runs; ++i)  // the first warms up
    for (size_t n = 0; n < works.size(); ++n) {
      const std::clock_t start = std::clock();
      works[n]();
      if (i > 0) least[n] = std::min(least[n], 1e3 * double(std::clock() - start) / CLOCKS_PER_SEC);
    }
  return least;
}

void check_cost(CheckResult& result, const CheckOptions& options) {
  const OneThread one_thread;
  torch::NoGradGuard no_grad;
  struct Size {
    int64_t channels, edge;
  };
  for (const Size& size : {Size{48, 48}, Size{96, 32}}) {
    const int64_t C = size.channels, n = size.edge;
    const auto x = torch::randn({1, C, n, n, n}).contiguous(at::MemoryFormat::ChannelsLast3d);
    const auto weight = torch::randn({C, C, 3, 3, 3}) / std::sqrt(27.0 * double(C));
    for (const int64_t kernel : {3, 7}) {
      nn::SpatialGate gate(nn::SpatialGateOptions().kernel(kernel));
      gate->eval();
      ops::KeptConv3dWeights kept;
      const auto ms = least_cpu_ms({[&] { gate(x); }, [&] { kept.conv3d(x, weight); }, [&] { torch::conv3d(x, weight, {}, 1, 1); },
                                    [&] { torch::empty_like(x).copy_(x); }},
                                   options.full ? 30 : 10);
      const std::string at = printed("k = %d, %d channels, %d^3", int(kernel), int(C), int(n));
      result.notes.push_back(printed("%s: gate %.2f ms, torch's 3x3x3 convolution %.2f ms, our own %.2f ms (%s), a copy of the features, which "
                                     "every gate has to make, %.2f ms; processor time of one thread. Over our own convolution the gate takes "
                                     "%.3f, the copy alone %.3f",
                                     at.c_str(), ms[0], ms[2], ms[1], ops::conv3d_form(x, weight).c_str(), ms[3], ms[0] / ms[1],
                                     ms[3] / ms[1]));
      result.at_most("time of the gate over that of torch's 3x3x3 convolution, " + at, ms[0] / ms[2], 0.05);
    }
  }
}

void check_lesions(CheckResult& result, const CheckOptions& options) {
  const int seeds = options.full ? 5 : 1;
  const int64_t edge = options.full ? 64 : 32;
  double auc = 1, gain = 1, other_auc = 0, other_dice = 1, of_its_map = 1, gate_parameters = 0, larger = 0;
  std::vector<double> gained;  // scan by scan
  for (int i = 0; i < seeds; ++i) {
    const auto runs = learn_lesion_gate({{0}, {1}, {3}, {3, /*other_scan=*/true}}, options.seed + uint64_t(i), edge);
    const LesionScore &none = runs[0].score, &one = runs[1].score, &three = runs[2].score, &other = runs[3].score;
    result.notes.push_back(printed("simulated lesions, %d^3, seed %d: Dice %.3f without a gate (%d parameters), %.3f with k = 1 (%d), %.3f with "
                                   "k = 3 (%d), %.3f when that is given the map of another scan, %.3f when trained so; AUC of the map %.3f "
                                   "with k = 1, %.3f with k = 3, of another scan's %.3f",
                                   int(edge), int(options.seed) + i, none.dice, int(none.parameters), one.dice, int(one.parameters),
                                   three.dice, int(three.parameters), three.dice_other_scan, other.dice, one.map_auc, three.map_auc,
                                   three.auc_other_scan));
    auc = std::min(auc, three.map_auc), gain = std::min(gain, three.dice - none.dice);
    other_auc = std::max(other_auc, three.auc_other_scan), other_dice = std::min(other_dice, three.dice - three.dice_other_scan);
    of_its_map = std::min(of_its_map, three.dice - other.dice);
    for (size_t n = 0; n < three.dice_by_scan.size(); ++n) gained.push_back(three.dice_by_scan[n] - none.dice_by_scan[n]);
    gate_parameters = double(three.gate_parameters), larger = double(three.parameters - none.parameters);
  }
  result.at_most("simulated lesions: parameters of the gate, k = 3", gate_parameters, 100);
  result.at_most("simulated lesions: parameters with the gate less those without", larger, 0);
  result.at_least("simulated lesions: AUC of the map against the lesions, worst seed", auc, 0.9);
  result.at_least("simulated lesions: Dice gained by the gate, worst seed", gain, 0.005);
  const auto mean_gain = [&](const std::vector<size_t>& scans) {
    double sum = 0;
    for (const size_t n : scans) sum += gained[n];
    return sum / double(scans.size());
  };
  const auto interval = train::bootstrap_interval(gained.size(), mean_gain, 1000, 0.95, options.seed);
  result.notes.push_back(printed("simulated lesions: Dice gained scan by scan, %d fresh scans: 95 %% interval of the mean [%.3f, %.3f]",
                                 int(gained.size()), interval.low, interval.high));
  result.at_least("simulated lesions: Dice gained scan by scan, low end of the 95 % interval", interval.low, 0.005);
  result.at_most("control, the map of another scan: AUC, largest", other_auc, 0.6);
  result.at_least("control, the map of another scan: Dice lost by it, smallest", other_dice, 0.1);
  result.at_least("control, trained with the map of another scan: Dice below that with its own, smallest", of_its_map, 0.05);
}
}  // namespace

CheckResult check_spatial_attention(const CheckOptions& options) {
  CheckResult result;
  check_counts(result);
  for (const int64_t axes : {2, 3})
    for (const int64_t kernel : {1, 3, 7})
      result.at_most(printed("map against plain loops in double, %d-D, k = %d: largest difference", int(axes), int(kernel)),
                     against_loops(axes, kernel, options.seed), 1e-6);
  check_lesions(result, options);
  check_cost(result, options);
  return result;
}

}  // namespace fovea::recipes
