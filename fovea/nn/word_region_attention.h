#pragma once
#include <torch/torch.h>

namespace fovea::nn {

struct WordRegionOptions {
  double sharpness = 4;        ///< temp1 of the paper's code: of the softmax over regions
  double word_sharpness = 5;   ///< temp2: of the words' cosines in the score
  bool single_softmax = false; ///< skip the softmax over words, so that a word may be as sharp on a region as it likes
};

/// Every word's weights over every image's regions, and how well texts and images agree.
struct WordRegions {
  torch::Tensor scores;   // [B,K]: image b, text k
  torch::Tensor weights;  // [B,K,T,N]; sum 1 over regions; rows of padding are 0
};

/// Word-region attention and local similarity of GLoRIA.
///   s = <word_t, region_n>;  a = softmax over words t of s (unless single_softmax);  w = softmax over regions n of
///   sharpness * a;  context_t = sum_n w_tn region_n;  score = log sum_t exp(word_sharpness * cosine(word_t, context_t))
/// a lies in [0,1], so that with both softmaxes no region can weigh e^sharpness times another.
/// Shapes   words [K,T,E], word_mask bool [K,T], true = a word; regions [B,N,E], region_mask bool [B,N] or undefined
/// Errors   ArgumentError: widths that differ, a text without a word, an image without a region
/// Cost     O(B K T N (E + 1)) time, O(B K T (N + E)) memory
/// Source   Huang et al. 2021 (GLoRIA), section 3.2, eq. 2 to 5, and the order of the two softmaxes in the authors' code
WordRegions word_regions(const torch::Tensor& words, const torch::Tensor& word_mask, const torch::Tensor& regions,
                         const torch::Tensor& region_mask = {}, const WordRegionOptions& options = {});

}  // namespace fovea::nn
