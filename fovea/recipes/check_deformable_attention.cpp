// A3, deformable attention: the definition by grid_sample, the exact radii, the learned ring, lesions of unequal size.
#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "fovea/ops/deformable_attention.h"
#include "fovea/recipes/check.h"
#include "fovea/recipes/gaussian_ring.h"
#include "fovea/recipes/lesion_sampling.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

// Two levels, three points, in double: largest difference of values and of all gradients from torch's grid_sample.
double against_grid_sample(int64_t axes, int64_t channels, uint64_t seed) {
  namespace F = torch::nn::functional;
  auto generator = at::detail::createCPUGenerator(seed);
  constexpr int64_t B = 2, Q = 5, H = 2, K = 3;
  const auto f64 = torch::TensorOptions(torch::kFloat64);
  const auto shapes = axes == 2 ? torch::tensor({{6, 4}, {3, 2}}, torch::kInt64) : torch::tensor({{3, 4, 2}, {2, 2, 3}}, torch::kInt64);
  const int64_t rows = shapes.prod(1).sum().item<int64_t>();
  const auto value = torch::randn({B, rows, H, channels}, generator, f64), upstream = torch::randn({B, Q, H * channels}, generator, f64),
             locations = torch::rand({B, Q, H, 2, K, axes}, generator, f64) * 1.2 - 0.1,
             weights = torch::rand({B, Q, H, 2 * K}, generator, f64).softmax(-1).view({B, Q, H, 2, K});
  std::array<std::array<torch::Tensor, 3>, 2> in;
  for (auto& set : in)
    set = {value.clone().requires_grad_(), locations.clone().requires_grad_(), weights.clone().requires_grad_()};
  const auto ours = ops::deformable_attention(in[0][0], shapes, in[0][1], in[0][2]);
  auto sum = torch::zeros({B * H, channels, Q}, f64);
  for (int64_t l = 0, from = 0; l < 2; ++l) {
    const int64_t n = shapes[l].prod().item<int64_t>();
    std::vector<int64_t> sizes = {B * H, channels};
    for (int64_t d = 0; d < axes; ++d) sizes.push_back(shapes[l][d].item<int64_t>());
    const auto image = in[1][0].narrow(1, from, n).permute({0, 2, 3, 1}).reshape(sizes);
    from += n;
    auto grid = (2 * in[1][1].select(3, l) - 1).permute({0, 2, 1, 3, 4}).reshape({B * H, Q, K, axes});
    if (axes == 3) grid = grid.unsqueeze(3);
    auto read = F::grid_sample(image, grid, F::GridSampleFuncOptions().mode(torch::kBilinear).padding_mode(torch::kZeros).align_corners(false));
    sum = sum + (read.view({B * H, channels, Q, K}) * in[1][2].select(3, l).permute({0, 2, 1, 3}).reshape({B * H, 1, Q, K})).sum(-1);
  }
  const auto expected = sum.view({B, H * channels, Q}).transpose(1, 2);
  ours.backward(upstream), expected.backward(upstream);
  double worst = (ours - expected).abs().max().item<double>();
  for (int i = 0; i < 3; ++i) {
    const auto a = in[0][i].grad(), b = in[1][i].grad();
    worst = std::max(worst, ((a - b).abs().max() / b.abs().max().clamp_min(1)).item<double>());
  }
  return worst;
}

void check_ring(CheckResult& result, const CheckOptions& options) {
  const std::vector<double> sigmas = {2, 4, 6, 8};
  struct Goal {
    RingGoal goal;
    double target, band;
  };
  for (const Goal& goal : {Goal{RingGoal::kPosition, 1.0, 0.05}, Goal{RingGoal::kSize, 1.41, 0.07}, Goal{RingGoal::kIntensity, 0, 0.1}})
    for (int i = 0; i < (options.full ? 5 : 1); ++i) {
      const LearnedRing ring = learn_ring(goal.goal, sigmas, options.seed + uint64_t(i));
      std::string line = printed("simulated tumours, goal %s, seed %d: mean |offset| in sigma", name_of(goal.goal).c_str(), int(options.seed) + i);
      for (const RingPoints& tumour : ring.tumours) {
        line += printed(" %.3f (%.0f voxels)", tumour.radius, tumour.sigma_vox);
        result.at_most(printed("learned ring, goal %s, sigma %.0f voxels, seed %d: |mean offset / sigma - %.2f|", name_of(goal.goal).c_str(),
                               tumour.sigma_vox, int(options.seed) + i, goal.target),
                       std::abs(tumour.radius - goal.target), goal.band);
      }
      result.notes.push_back(line + printed("; error %.3f", ring.error));
    }
}

void check_lesions(CheckResult& result, const CheckOptions& options) {
  const std::vector<SamplePoints> kinds = {SamplePoints::kDeformable, SamplePoints::kFixedGrid, SamplePoints::kWideGrid};
  double fixed = 0, wide = 0;
  for (int i = 0; i < (options.full ? 5 : 1); ++i) {
    const auto scores = learn_lesion_sampling(kinds, options.seed + uint64_t(i));
    std::string line = printed("simulated lesions of unequal size, seed %d, error (small, large lesions; parameters):", int(options.seed) + i);
    for (size_t k = 0; k < kinds.size(); ++k)
      line += printed(" %s %.3f (%.3f, %.3f; %d);", name_of(kinds[k]).c_str(), scores[k].error, scores[k].small_error,
                      scores[k].large_error, int(scores[k].parameters));
    line.pop_back();
    result.notes.push_back(line);
    fixed = std::max(fixed, scores[0].error / scores[1].error), wide = std::max(wide, scores[0].error / scores[2].error);
  }
  result.at_most("simulated lesions, 27 samples: error of deformable points over that of the 3x3x3 voxels, worst seed", fixed, 0.95);
  result.at_most("the same over a 3x3x3 grid of learned spacing, worst seed", wide, 1);
}
}  // namespace

CheckResult check_deformable_attention(const CheckOptions& options) {
  CheckResult result;
  for (const int64_t axes : {2, 3})
    for (const int64_t channels : {30, 32, 64, 71})
      result.at_most(printed("value and gradients against grid_sample in double, %d-D, %d channels", int(axes), int(channels)),
                     against_grid_sample(axes, channels, options.seed), 1e-12);
  const BestRadii radii = best_radii();
  const double root = std::sqrt(2.0);
  result.at_most("radius of most information about position, from 1 sigma", std::abs(radii.edge - 1), 1e-4);
  result.at_most("radius of most information about size, from sqrt 2 sigma", std::abs(radii.size - root), 1e-4);
  result.at_most("radius of most mass on a 3-D shell, from sqrt 2 sigma", std::abs(radii.shell_mass - root), 1e-4);
  result.equal("radius of most intensity, sigma", radii.intensity, 0);
  check_ring(result, options);
  check_lesions(result, options);
  return result;
}

}  // namespace fovea::recipes
