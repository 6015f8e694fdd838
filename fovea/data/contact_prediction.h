#pragma once
#include <torch/torch.h>

#include <filesystem>
#include <vector>

#include "fovea/io/alignment.h"

// Which columns of an alignment touch in the folded protein? Statistics that need no training: what every learned method
// stands beside.
namespace fovea::data {

/// 1 / (number of sequences, itself included, that agree in at least `identity` of the columns): [N] f64. Its sum is the
/// effective number of sequences.
/// Cost     O(N^2 L / 8), on all threads
torch::Tensor sequence_weights(const io::Alignment& alignment, double identity = 0.8);

/// Mutual information of all pairs of columns in nats, 20 residues and the gap, weighted: [L,L] f64, symmetric, diagonal 0.
torch::Tensor mutual_information(const io::Alignment& alignment, const torch::Tensor& weights);

/// Frobenius norm, per pair of columns, of the inverse covariance of the 20 residues; `shrinkage` / sqrt(effective number
/// of sequences) is added to the covariance's diagonal. [L,L] f64, symmetric, diagonal 0.
/// Cost     O(N (20 L)^2 + (20 L)^3)
/// Source   as mean-field direct coupling analysis (Morcos et al. 2011) with a ridge in place of pseudo-counts
torch::Tensor inverse_covariance(const io::Alignment& alignment, const torch::Tensor& weights, double shrinkage = 4.5);

/// Scores less the product of their row means over the mean: a column that scores high with all others says little. Scores
/// whose sum is 0 stay as they are.
/// Source   Dunn, Wahl & Gloor 2008, average product correction
torch::Tensor average_product_correction(const torch::Tensor& scores);

/// Distances between columns, [L,L] f64, NaN where none is known, from lines "i j score distance" (columns from 1, angstrom).
/// Errors   IoError: a line of other than four numbers, a column beyond L
torch::Tensor read_distances(const std::filesystem::path& path, int64_t columns);

/// Share of contacts (distance below `contact`) among the `count` best-scored pairs of columns at least `separation` apart
/// whose distance is known; all of them for count 0: chance.
/// Errors   ArgumentError: no such pair
double contact_precision(const torch::Tensor& scores, const torch::Tensor& distances, int64_t count, int64_t separation, double contact = 8);

}  // namespace fovea::data
