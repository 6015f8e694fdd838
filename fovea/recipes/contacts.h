#pragma once
#include <torch/torch.h>

#include <optional>
#include <string>
#include <vector>

#include "fovea/io/alignment.h"

// Which columns of an alignment touch? Attention beside a free Potts model and statistics. Row A11.
namespace fovea::recipes {

enum class ContactMethod { kFactored, kTied, kPotts, kCovariance, kInformation };

/// "factored", "tied", "potts", "covariance", "mi"; none for another word.
std::optional<ContactMethod> contact_method(const std::string& name);
/// "factored attention", ...: for tables and titles.
std::string title_of(ContactMethod method);

/// Sequences are drawn by weight, so that each batch counts alike; Adam, half a cosine. The single-site terms begin at the
/// weighted frequencies.
struct ContactTraining {
  int64_t heads = 256, channels = 16, steps = 400, batch = 256;
  double rate = 2e-2, l2 = 1e-2;
};

/// Scores [L,L] of all pairs of columns by models::FactoredAttention, trained on the pseudo-likelihood of the weighted
/// sequences, after the average product correction. Same seed, same result.
torch::Tensor learn_contacts(const io::Alignment& alignment, const torch::Tensor& weights, const ContactTraining& training, uint64_t seed);

/// The same by a Potts model whose couplings are all free, (L states)^2 of them, on the same pseudo-likelihood: what the factored one saves.
/// Source   Ekeberg et al. 2013 (plmDCA)
torch::Tensor learn_potts(const io::Alignment& alignment, const torch::Tensor& weights, const ContactTraining& training, uint64_t seed);
ContactTraining potts_training();

struct TiedTraining {
  int64_t dim = 64, heads = 8, blocks = 1;
  int64_t sequences = 64, steps = 400;  // sequences of an alignment drawn for a step
  double rate = 3e-3, masked = 0.15;    // share of residues to be told
};

/// The same by models::AlignmentTransformer, trained on masked residues of drawn parts of the alignment: the mean over drawn
/// parts and heads of its tied maps, each symmetric and corrected.
torch::Tensor learn_tied(const io::Alignment& alignment, const torch::Tensor& weights, const TiedTraining& training, uint64_t seed);

/// Scores of any method with its own settings.
/// Errors   ArgumentError: fewer than two sequences or columns. ResourceError: more memory than the machine has free
torch::Tensor contact_scores(const io::Alignment& alignment, const torch::Tensor& weights, ContactMethod method, uint64_t seed);

/// Precision among the best pairs of one method.
struct ContactPrecision {
  std::string method;
  double at_l = 0, at_half = 0, at_fifth = 0;  // of L, L/2, L/5 pairs
};

ContactPrecision precision_of(const std::string& method, const torch::Tensor& scores, const torch::Tensor& distances, int64_t separation);

/// Of all pairs that far apart: what scores that say nothing reach.
ContactPrecision chance_of(const torch::Tensor& distances, int64_t separation);

/// A made-up family: `columns` columns of which as many pairs touch, each with one of four random residue matrices as its
/// couplings; 2000 sequences of that Potts model. distances: 0 for pairs that touch, 20 for others.
struct PottsFamily {
  io::Alignment alignment;
  torch::Tensor distances;
};
PottsFamily draw_potts_family(int64_t columns, uint64_t seed);

}  // namespace fovea::recipes
