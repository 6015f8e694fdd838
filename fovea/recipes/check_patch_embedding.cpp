// P2, 3-D patch embedding: token counts, the two forms of the projection, and patches of a real scan.
#include <torch/torch.h>

#include <cmath>
#include <filesystem>

#include "fovea/io/image.h"
#include "fovea/nn/patch_embed.h"
#include "fovea/recipes/check.h"

namespace fovea::recipes {

namespace {
// [Z,Y,X] cut into patches, zero-padded at the far ends: [tokens, p^3].
torch::Tensor patchify(const torch::Tensor& volume, int64_t p) {
  const auto x = nn::pad_to_multiple(volume.unsqueeze(0).unsqueeze(0), {p, p, p})[0][0];
  const int64_t z = x.size(0) / p, y = x.size(1) / p, w = x.size(2) / p;
  // (z p) (y p) (x p) -> (z y x) (p p p)
  return x.reshape({z, p, y, p, w, p}).permute({0, 2, 4, 1, 3, 5}).reshape({z * y * w, p * p * p});
}

torch::Tensor unpatchify(const torch::Tensor& patches, int64_t p, at::IntArrayRef shape) {
  auto tokens = [&](int a) { return (shape[a] + p - 1) / p; };
  const auto x = patches.reshape({tokens(0), tokens(1), tokens(2), p, p, p}).permute({0, 3, 1, 4, 2, 5}).reshape({tokens(0) * p, tokens(1) * p, tokens(2) * p});
  return x.slice(0, 0, shape[0]).slice(1, 0, shape[1]).slice(2, 0, shape[2]);
}

// Colin27 when its package is installed, else a smooth made-up volume of the same size; `real` says which.
torch::Tensor scan(bool& real, uint64_t seed) {
  const std::filesystem::path path = "/usr/share/mricron/templates/ch2.nii.gz";
  real = std::filesystem::exists(path);
  if (real) {
    Volume v = io::read_image(path);
    const auto& s = v.geometry.shape;
    return torch::from_blob(v.data.data(), {s[0], s[1], s[2]}, torch::kUInt8).to(torch::kFloat32);
  }
  auto generator = at::detail::createCPUGenerator(seed);
  const auto coarse = torch::randn({1, 1, 12, 14, 12}, generator, torch::kFloat32);
  return torch::nn::functional::interpolate(coarse, torch::nn::functional::InterpolateFuncOptions().size(std::vector<int64_t>{181, 217, 181}).mode(torch::kTrilinear).align_corners(false))[0][0] * 30 + 100;
}

int64_t tokens_of(int64_t edge, int64_t p) {
  nn::PatchEmbed embed(nn::PatchEmbedOptions(1, 1).patch({p, p, p}));
  torch::NoGradGuard no_grad;
  const auto out = embed->forward(torch::zeros({1, 1, edge, edge, edge}));
  return out.size(2) * out.size(3) * out.size(4);
}
}  // namespace

CheckResult check_patch_embedding(const CheckOptions& options) {
  CheckResult result;
  torch::NoGradGuard no_grad;
  auto generator = at::detail::createCPUGenerator(options.seed);
  result.equal("tokens of 128^3 with 8^3 patches", double(tokens_of(128, 8)), 4096);
  result.equal("tokens of 128^3 with 16^3 patches", double(tokens_of(128, 16)), 512);
  result.equal("tokens of 96^3 with 16^3 patches", double(tokens_of(96, 16)), 216);
  {
    nn::PatchEmbed embed(nn::PatchEmbedOptions(1, 768).patch({16, 16, 16}));
    int64_t n = 0;
    for (const auto& p : embed->parameters()) n += p.numel();
    result.equal("parameters, width 768, 16^3 patches, 1 channel", double(n), 3146496);
  }
  {
    // The convolution equals flattening each patch and one Linear layer; anisotropic patches, two channels, ragged size.
    const nn::Triple p{2, 4, 3};
    nn::PatchEmbed embed(nn::PatchEmbedOptions(2, 24).patch(p));
    const auto x = torch::randn({1, 2, 9, 10, 11}, generator, torch::kFloat32);
    const auto conv = embed->forward(x);
    const auto padded = nn::pad_to_multiple(x, p);
    const int64_t z = padded.size(2) / p[0], y = padded.size(3) / p[1], w = padded.size(4) / p[2];
    const auto flat = padded.reshape({2, z, p[0], y, p[1], w, p[2]}).permute({1, 3, 5, 0, 2, 4, 6}).reshape({z * y * w, 2 * p[0] * p[1] * p[2]});
    const auto linear = torch::addmm(embed->proj->bias, flat, embed->proj->weight.reshape({24, -1}).t());
    result.at_most("convolution against flatten + Linear, largest difference", (conv[0].reshape({24, -1}).t() - linear).abs().max().item<double>(), 1e-6);
  }
  bool real = false;
  const auto volume = scan(real, options.seed);
  if (!real) result.notes.push_back("Debian's mricron-data is absent: a made-up volume of the same size was used instead of the Colin27 T1");
  const auto patches = patchify(volume, 16);
  result.equal("voxels changed by patchify and unpatchify, 181x217x181, 16^3 patches", double((unpatchify(patches, 16, volume.sizes()) != volume).sum().item<int64_t>()), 0);
  {
    // The best linear autoencoder of 8^3 patches is PCA; its error must fall with every doubling of the width.
    const auto x = patchify(volume, 8).to(torch::kFloat64);
    const auto mean = x.mean(0, /*keepdim=*/true), centred = x - mean;
    const auto vectors = std::get<1>(torch::linalg_eigh(torch::matmul(centred.t(), centred), "L"));
    const double peak = x.max().item<double>();
    double before = -INFINITY, smallest_gain = INFINITY;
    for (const int64_t width : {8, 16, 32, 64, 128, 256}) {
      const auto basis = vectors.slice(1, 512 - width, 512);
      const double error = (centred - torch::matmul(torch::matmul(centred, basis), basis.t())).square().mean().item<double>();
      const double psnr = 10 * std::log10(peak * peak / error);
      if (width > 8) smallest_gain = std::min(smallest_gain, psnr - before);
      before = psnr;
    }
    result.at_least("linear autoencoder of 8^3 patches: smallest PSNR gain of a doubled width, 8 to 256 (dB)", smallest_gain, 0.1);
    result.at_least("linear autoencoder of 8^3 patches: PSNR at width 256 (dB)", before, 30);
  }
  return result;
}

}  // namespace fovea::recipes
