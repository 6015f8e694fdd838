#include "fovea/recipes/lesion_sampling.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "fovea/nn/deformable_attention.h"
#include "fovea/ops/deformable_attention.h"
#include "fovea/recipes/gaussian_tumour.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace {
constexpr int64_t kSamples = 27, kBatch = 32, kEdge = 25, kAnswers = 4;
constexpr int64_t kHidden = 32, kWiderHidden = 37;  // of the perceptron; wider where nothing predicts offsets

// The 27 displacements of a 3x3x3 grid: [27,3] of -1, 0, 1.
torch::Tensor grid_offsets() {
  const auto axis = torch::arange(-1, 2, torch::kFloat32);
  return torch::stack(torch::meshgrid({axis, axis, axis}, "ij"), -1).view({kSamples, 3});
}

struct Reader : torch::nn::Module {
  Reader(SamplePoints kind, at::Generator generator) : kind(kind) {
    const int64_t hidden = kind == SamplePoints::kDeformable ? kHidden : kWiderHidden;
    if (kind == SamplePoints::kDeformable) {
      offsets = register_module("offsets", torch::nn::Linear(kTumourFeatures, kSamples * 3));
    } else if (kind == SamplePoints::kWideGrid) {
      spacing_vox = register_parameter("spacing_vox", torch::ones({1}));
    }
    hidden_layer = register_module("hidden", torch::nn::Linear(kSamples + kTumourFeatures, hidden));
    read = register_module("read", torch::nn::Linear(hidden, kAnswers));
    torch::NoGradGuard no_grad;
    for (auto& item : named_parameters())
      if (auto p = item.value(); item.key().ends_with("weight"))
        p.normal_(0, 1 / std::sqrt(double(p.size(1))), generator);
      else if (item.key().ends_with("bias"))
        p.zero_();
    if (offsets) {  // one voxel long for every lesion, as the grid
      offsets->weight.zero_();
      offsets->bias.copy_(nn::spread_directions(kSamples, 3).flatten());
    }
  }

  torch::Tensor answer(const Tumours& t) {
    const int64_t B = t.features.size(0);
    static const torch::Tensor grid = grid_offsets();
    const auto moved = kind == SamplePoints::kDeformable  ? offsets(t.features).view({B, kSamples, 3})
                       : kind == SamplePoints::kFixedGrid ? grid.expand({B, kSamples, 3})
                                                          : (grid * spacing_vox).expand({B, kSamples, 3});
    const auto at = (t.at_vox.view({B, 1, 1, 1, 1, 3}) + moved.reshape({B, 1, kSamples, 1, 1, 3}) + 0.5) / double(kEdge);
    const auto value = t.voxels.view({B, kEdge * kEdge * kEdge, 1, 1}).expand({B, kEdge * kEdge * kEdge, kSamples, 1});
    const auto samples = ops::deformable_attention(value, torch::tensor({{kEdge, kEdge, kEdge}}, torch::kInt64), at,
                                                   torch::ones({B, 1, kSamples, 1, 1}))
                             .view({B, kSamples});
    return read(torch::gelu(hidden_layer(torch::cat({4 * (samples - 0.5), t.features}, 1))));
  }

  SamplePoints kind;
  torch::nn::Linear offsets{nullptr}, hidden_layer{nullptr}, read{nullptr};
  torch::Tensor spacing_vox;
};

// Squared error of each scan, mean over the four answers: [B].
torch::Tensor errors(Reader& reader, const Tumours& t) {
  return (reader.answer(t) - torch::cat({t.moved, t.grown}, 1)).square().mean(1);
}
}  // namespace

std::string name_of(SamplePoints points) {
  switch (points) {
    case SamplePoints::kDeformable: return "deformable points";
    case SamplePoints::kFixedGrid: return "3x3x3 voxels";
    default: return "3x3x3 grid of learned spacing";
  }
}

std::vector<SamplingScore> learn_lesion_sampling(const std::vector<SamplePoints>& kinds, uint64_t seed, int64_t steps) {
  constexpr double kRate = 1e-2, kPlaces = 5;  // places are in voxels, several times larger than other weights
  constexpr int64_t kFresh = 512;
  const OneThread one_thread;
  auto generator = at::detail::createCPUGenerator(seed);
  TumourOptions options;
  options.axes = 3, options.edge_vox = kEdge, options.smallest_vox = 1.5, options.largest_vox = 5;
  std::vector<std::shared_ptr<Reader>> readers;
  std::vector<std::unique_ptr<torch::optim::Adam>> optimizers;
  for (const SamplePoints kind : kinds) {
    readers.push_back(std::make_shared<Reader>(kind, generator));
    std::vector<torch::Tensor> places, words;
    for (const auto& item : readers.back()->named_parameters())
      (item.key().starts_with("offsets") || item.key() == "spacing_vox" ? places : words).push_back(item.value());
    optimizers.push_back(std::make_unique<torch::optim::Adam>(
        std::vector<torch::optim::OptimizerParamGroup>{torch::optim::OptimizerParamGroup(words), torch::optim::OptimizerParamGroup(places)},
        torch::optim::AdamOptions(kRate)));
  }
  for (int64_t step = 0; step < steps; ++step) {
    const Tumours t = draw_tumours(kBatch, options, generator);
    const double rate = kRate * std::min({1.0, double(step + 1) / 20, 2 * (1 - double(step) / double(steps)) + 0.01});
    for (size_t i = 0; i < readers.size(); ++i) {
      optimizers[i]->param_groups()[0].options().set_lr(rate);
      optimizers[i]->param_groups()[1].options().set_lr(kPlaces * rate);
      optimizers[i]->zero_grad();
      errors(*readers[i], t).mean().backward();
      optimizers[i]->step();
    }
  }

  torch::NoGradGuard no_grad;
  const Tumours fresh = draw_tumours(kFresh, options, generator);
  std::vector<SamplingScore> scores;
  for (const auto& reader : readers) {
    const auto each = errors(*reader, fresh);
    SamplingScore score{each.mean().item<double>(), each.masked_select(fresh.sigma_vox < 2.5).mean().item<double>(),
                        each.masked_select(fresh.sigma_vox > 4).mean().item<double>(), 0};
    for (const auto& p : reader->parameters()) score.parameters += p.numel();
    scores.push_back(score);
  }
  return scores;
}

}  // namespace fovea::recipes
