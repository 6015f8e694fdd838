#pragma once
#include <torch/torch.h>

#include <filesystem>
#include <string>
#include <vector>

#include "fovea/io/alignment.h"

// Which columns of an alignment touch? Factored attention beside statistics. Row A11.
namespace fovea::recipes {

struct ContactTraining {
  int64_t heads = 32, channels = 16, steps = 2400, batch = 128;
  double rate = 5e-3, l2 = 1e-3;
};

/// Scores [L,L] of all pairs of columns by models::FactoredAttention, trained on the pseudo-likelihood of the weighted
/// sequences (Adam, half a cosine), after the average product correction. Same seed, same result.
torch::Tensor learn_contacts(const io::Alignment& alignment, const torch::Tensor& weights, const ContactTraining& training, uint64_t seed);

/// The same by a Potts model whose couplings are all free, (L states)^2 of them, on the same pseudo-likelihood: what the factored one saves.
/// Source   Ekeberg et al. 2013 (plmDCA)
torch::Tensor learn_potts(const io::Alignment& alignment, const torch::Tensor& weights, const ContactTraining& training, uint64_t seed);

/// Precision among the best pairs of one method.
struct ContactPrecision {
  std::string method;
  double at_l = 0, at_half = 0, at_fifth = 0;  // of L, L/2, L/5 pairs
};

ContactPrecision precision_of(const std::string& method, const torch::Tensor& scores, const torch::Tensor& distances, int64_t separation);

/// Mutual information, inverse covariance and, if `learned` is defined, factored attention; the last line is chance.
std::vector<ContactPrecision> compare_contacts(const io::Alignment& alignment, const torch::Tensor& weights, const torch::Tensor& distances,
                                               int64_t separation, const torch::Tensor& learned = {});

/// A made-up family: `columns` columns of which as many pairs touch, each with one of four random residue matrices as its
/// couplings; 2000 sequences of that Potts model. distances: 0 for pairs that touch, 20 for others.
struct PottsFamily {
  io::Alignment alignment;
  torch::Tensor distances;
};
PottsFamily draw_potts_family(int64_t columns, uint64_t seed);

}  // namespace fovea::recipes
