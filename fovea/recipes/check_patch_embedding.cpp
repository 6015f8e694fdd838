// P2, 3-D patch embedding: token counts, the two forms of the projection, and patches of a real scan.
#include <torch/torch.h>

#include <cmath>

#include "fovea/nn/patch_embed.h"
#include "fovea/recipes/check.h"
#include "fovea/recipes/patch_experiments.h"

namespace fovea::recipes {

CheckResult check_patch_embedding(const CheckOptions& options) {
  CheckResult result;
  torch::NoGradGuard no_grad;
  result.equal("tokens of 128^3 with 8^3 patches", double(tokens_of(128, 8)), 4096);
  result.equal("tokens of 128^3 with 16^3 patches", double(tokens_of(128, 16)), 512);
  result.equal("tokens of 96^3 with 16^3 patches", double(tokens_of(96, 16)), 216);
  {
    nn::PatchEmbed embed(nn::PatchEmbedOptions(1, 768).patch({16, 16, 16}));
    int64_t n = 0;
    for (const auto& p : embed->parameters()) n += p.numel();
    result.equal("parameters, width 768, 16^3 patches, 1 channel", double(n), 3146496);
  }
  result.at_most("convolution against flatten + Linear, largest difference", patch_projection_difference(options.seed), 1e-6);
  const FormDifference forms = patch_forms_difference(options.seed);
  result.at_most("convolution form against perceptron form, weights converted, anisotropic patch: largest difference", forms.outputs, 1e-6);
  result.equal("a weight converted there and back: largest difference", forms.weight, 0);
  result.at_most("sin-cos positions against their formula, largest difference", sincos_difference(), 1e-6);
  result.at_most("position table on a grid three times as fine, at the old tokens: largest difference", resized_positions_difference(options.seed), 1e-6);
  const SampleScan scan = sample_scan(options.seed);
  if (!scan.real) result.notes.push_back("Debian's mricron-data is absent: a made-up volume of the same size was used instead of the Colin27 T1");
  result.equal("voxels changed by patchify and unpatchify, 181x217x181, 16^3 patches", double(voxels_changed_by_patchify(scan.voxels, 16)), 0);
  {
    // The best linear autoencoder of 8^3 patches is PCA; its error must fall with every doubling of the width.
    const auto x = patchify(scan.voxels, 8).to(torch::kFloat64);
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
