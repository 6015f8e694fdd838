#include "fovea/recipes/patch_experiments.h"

#include <filesystem>

#include "fovea/io/image.h"
#include "fovea/nn/patch_embed.h"

namespace fovea::recipes {

int64_t tokens_of(int64_t edge, int64_t patch) {
  nn::PatchEmbed embed(nn::PatchEmbedOptions(1, 1).patch({patch, patch, patch}));
  torch::NoGradGuard no_grad;
  const auto out = embed->forward(torch::zeros({1, 1, edge, edge, edge}));
  return out.size(2) * out.size(3) * out.size(4);
}

torch::Tensor patchify(const torch::Tensor& volume, int64_t p) {
  const auto x = nn::pad_to_multiple(volume.unsqueeze(0).unsqueeze(0), {p, p, p})[0][0];
  const int64_t z = x.size(0) / p, y = x.size(1) / p, w = x.size(2) / p;
  // (z p) (y p) (x p) -> (z y x) (p p p)
  return x.reshape({z, p, y, p, w, p}).permute({0, 2, 4, 1, 3, 5}).reshape({z * y * w, p * p * p});
}

torch::Tensor unpatchify(const torch::Tensor& patches, int64_t p, at::IntArrayRef shape) {
  const auto tokens = [&](int a) { return (shape[a] + p - 1) / p; };
  // (z y x) (p p p) -> (z p) (y p) (x p)
  const auto x = patches.reshape({tokens(0), tokens(1), tokens(2), p, p, p})
                     .permute({0, 3, 1, 4, 2, 5})
                     .reshape({tokens(0) * p, tokens(1) * p, tokens(2) * p});
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
