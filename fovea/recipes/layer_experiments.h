#pragma once
#include <torch/torch.h>

#include <vector>

// What `fovea check`, `fovea claims` and the lessons find out about heads, permutations and norms, each computed in one
// place.
namespace fovea::recipes {

/// Parameters of one self-attention layer, all biases included or only that of the output.
int64_t attention_parameters(int64_t width, int64_t heads, bool qkv_bias);

/// Largest difference between a layer of several heads and the same weights run head by head, concatenated and
/// projected.
double heads_against_single_runs(int64_t width, int64_t heads, uint64_t seed);

/// Largest differences after the tokens were permuted, outputs being permuted back.
struct Equivariance {
  double unbiased = 0;  // attention without position: 0 up to rounding
  double unmoved = 0;   // the same without permuting back: what invariance would make 0
  double biased = 0;    // with a bias by position
  double pooled = 0;    // without, mean over the tokens
};
Equivariance permute_tokens(uint64_t seed);

/// QK-norm without affine part, in double: scores against the identities and bounds of theory, all as largest
/// differences.
struct ImplicitTemperature {
  double identity = 0;     // score - centred dot product / (temperature sqrt(C))
  double correlation = 0;  // score - sqrt(C) corr(q, k)
  double activations = 0;  // the first again, on q and k of a self-attention layer fed with patches of a scan, in float
  double bound = 0;        // sqrt(C)
  double largest_score = 0;     // over random, aligned, opposite, constant and huge inputs
  double change = 0;            // of a score when all inputs grow 100-fold
  double mean_temperature = 0;  // for deviations sigma_q and sigma_k
};
ImplicitTemperature implicit_temperature(int64_t channels, uint64_t seed, double sigma_q = 3, double sigma_k = 0.2);

}  // namespace fovea::recipes
