#include "fovea/nn/word_region_attention.h"

#include <limits>

#include "fovea/core/error.h"

namespace fovea::nn {

WordRegions word_regions(const torch::Tensor& words, const torch::Tensor& word_mask, const torch::Tensor& regions,
                         const torch::Tensor& region_mask, const WordRegionOptions& options) {
  if (words.dim() != 3 || regions.dim() != 3 || words.size(2) != regions.size(2))
    throw ArgumentError(c10::str("word_regions: words are ", words.sizes(), ", regions ", regions.sizes(),
                                 ", expected [K,T,E] and [B,N,E] of one width"));
  const auto check_mask = [](const torch::Tensor& mask, const torch::Tensor& of, const char* name) {
    if (mask.scalar_type() != torch::kBool || mask.sizes() != of.sizes().slice(0, 2))
      throw ArgumentError(c10::str("word_regions: the mask of ", name, " is ", mask.scalar_type(), " ", mask.sizes(),
                                   ", expected bool ", of.sizes().slice(0, 2)));
    if (!mask.any(1).all().item<bool>()) throw ArgumentError(c10::str("word_regions: a case has no ", name));
  };
  check_mask(word_mask, words, "words");
  if (region_mask.defined()) check_mask(region_mask, regions, "regions");
  constexpr double kNever = -std::numeric_limits<double>::infinity();

  auto scores = torch::einsum("kte,bne->bktn", {words, regions});
  const auto padding = word_mask.logical_not().view({1, words.size(0), words.size(1), 1});
  if (!options.single_softmax) scores = scores.masked_fill(padding, kNever).softmax(2);
  scores = options.sharpness * scores;
  if (region_mask.defined())
    scores = scores.masked_fill(region_mask.logical_not().view({regions.size(0), 1, 1, regions.size(1)}), kNever);
  const auto weights = scores.softmax(3).masked_fill(padding, 0);
  const auto context = torch::einsum("bktn,bne->bkte", {weights, regions});
  // b k t
  const auto cosine = (context * words).sum(3) / (context.norm(2, 3) * words.norm(2, 2)).clamp_min(1e-8);
  const auto agreement = (options.word_sharpness * cosine).masked_fill(padding.squeeze(3), kNever).logsumexp(2);
  return {agreement, weights};
}

}  // namespace fovea::nn
