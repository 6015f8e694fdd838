#include "fovea/recipes/patch_experiments.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "fovea/io/image.h"
#include "fovea/nn/patch_embed.h"
#include "fovea/nn/patch_embedding_block.h"

namespace fovea::recipes {

int64_t tokens_of(int64_t edge, int64_t patch) {
  nn::PatchEmbed embed(nn::PatchEmbedOptions(1, 1).patch({patch, patch, patch}));
  torch::NoGradGuard no_grad;
  const auto out = embed->forward(torch::zeros({1, 1, edge, edge, edge}));
  return out.size(2) * out.size(3) * out.size(4);
}

torch::Tensor patchify(const torch::Tensor& volume, int64_t p) {
  return nn::patch_rows(nn::pad_to_multiple(volume.unsqueeze(0).unsqueeze(0), {p, p, p}), {p, p, p})[0];
}

torch::Tensor unpatchify(const torch::Tensor& patches, int64_t p, at::IntArrayRef shape) {
  const auto tokens = [&](int a) { return (shape[a] + p - 1) / p; };
  const auto x = nn::volume_of_rows(patches.unsqueeze(0), {tokens(0), tokens(1), tokens(2)}, {p, p, p})[0][0];
  return x.slice(0, 0, shape[0]).slice(1, 0, shape[1]).slice(2, 0, shape[2]);
}

int64_t voxels_changed_by_patchify(const torch::Tensor& volume, int64_t patch) {
  return (unpatchify(patchify(volume, patch), patch, volume.sizes()) != volume).sum().item<int64_t>();
}

double patch_projection_difference(uint64_t seed) {
  torch::NoGradGuard no_grad;
  auto generator = at::detail::createCPUGenerator(seed);
  const nn::Triple p{2, 4, 3};
  nn::PatchEmbed embed(nn::PatchEmbedOptions(2, 24).patch(p));
  for (auto& parameter : embed->parameters())
    parameter.uniform_(-0.2, 0.2, generator);  // what torch draws for 48 inputs
  const auto x = torch::randn({1, 2, 9, 10, 11}, generator, torch::kFloat32);
  const auto convolved = embed->forward(x);
  const auto padded = nn::pad_to_multiple(x, p);
  const int64_t z = padded.size(2) / p[0], y = padded.size(3) / p[1], w = padded.size(4) / p[2];
  // c (z pz) (y py) (x px) -> (z y x) (c pz py px)
  const auto flat = padded.reshape({2, z, p[0], y, p[1], w, p[2]})
                        .permute({1, 3, 5, 0, 2, 4, 6})
                        .reshape({z * y * w, 2 * p[0] * p[1] * p[2]});
  const auto linear = torch::addmm(embed->proj->bias, flat, embed->proj->weight.reshape({24, -1}).t());
  return (convolved[0].reshape({24, -1}).t() - linear).abs().max().item<double>();
}

FormDifference patch_forms_difference(uint64_t seed) {
  torch::NoGradGuard no_grad;
  auto generator = at::detail::createCPUGenerator(seed);
  const nn::Triple patch{2, 4, 3};
  const nn::PatchEmbeddingOptions options(2, {8, 12, 9}, patch, 24);
  nn::PatchEmbeddingBlock convolution(options),
      perceptron(nn::PatchEmbeddingOptions(options).projection(nn::PatchProjection::kPerceptron));
  for (auto& parameter : convolution->parameters()) parameter.uniform_(-0.2, 0.2, generator);
  const auto from = convolution->named_parameters();
  const auto& weight = from["patch_embeddings.weight"];
  for (auto& p : perceptron->named_parameters())
    p.value().copy_(p.key() == "patch_embeddings.1.weight" ? nn::perceptron_weight(weight)
                    : p.key() == "patch_embeddings.1.bias" ? from["patch_embeddings.bias"]
                                                           : from[p.key()]);
  const auto x = torch::randn({1, 2, 8, 12, 9}, generator, torch::kFloat32);
  const auto back = nn::convolution_weight(nn::perceptron_weight(weight), 2, patch);
  return {(convolution(x) - perceptron(x)).abs().max().item<double>(), (back - weight).abs().max().item<double>()};
}

double sincos_difference() {
  const nn::Triple grid{3, 5, 4};
  constexpr int64_t kWidth = 48, kWaves = kWidth / 6;
  const auto table = nn::sincos_positions(grid, kWidth).view({grid[0], grid[1], grid[2], kWidth});
  const auto value = table.accessor<float, 4>();
  double worst = 0;
  const int axes[] = {1, 0, 2};  // MONAI's order
  for (int64_t z = 0; z < grid[0]; ++z)
    for (int64_t y = 0; y < grid[1]; ++y)
      for (int64_t x = 0; x < grid[2]; ++x)
        for (int64_t e = 0; e < kWidth; ++e) {
          const int64_t position[] = {z, y, x}, wave = e % kWaves, block = e / kWaves;
          const double angle = double(position[axes[block / 2]]) * std::pow(10000.0, -double(wave) / kWaves);
          const double expected = block % 2 ? std::cos(angle) : std::sin(angle);
          worst = std::max(worst, std::abs(double(value[z][y][x][e]) - expected));
        }
  return worst;
}

double resized_positions_difference(uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  const auto table = torch::randn({1, 4 * 5 * 6, 12}, generator, torch::kFloat32);
  const auto fine = nn::resize_positions(table, {4, 5, 6}, {12, 15, 18}).view({12, 15, 18, 12});
  const auto middle = fine.slice(0, 1, 12, 3).slice(1, 1, 15, 3).slice(2, 1, 18, 3);
  return (middle - table.view({4, 5, 6, 12})).abs().max().item<double>();
}

SampleScan sample_scan(uint64_t seed) {
  const std::filesystem::path path = "/usr/share/mricron/templates/ch2.nii.gz";
  if (std::filesystem::exists(path)) {
    Volume v = io::read_image(path);
    const auto& s = v.geometry.shape;
    return {torch::from_blob(v.data.data(), {s[0], s[1], s[2]}, torch::kUInt8).to(torch::kFloat32), true};
  }
  auto generator = at::detail::createCPUGenerator(seed);
  const auto coarse = torch::randn({1, 1, 12, 14, 12}, generator, torch::kFloat32);
  return {torch::upsample_trilinear3d(coarse, {181, 217, 181}, /*align_corners=*/false)[0][0] * 30 + 100, false};
}

}  // namespace fovea::recipes
