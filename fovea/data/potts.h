#pragma once
#include <torch/torch.h>

namespace fovea::data {

/// Sequences of a Potts model, p(x) ~ exp(sum_i h[i,x_i] + sum_{i<j} J[i,x_i,j,x_j]), by Gibbs sampling.
/// couplings  [L,S,L,S] f32, symmetric; fields [L,S] f32; sweeps: over all columns, each chain from noise of its own
/// -> [count,L] int64. Made up, not evolved: chains are independent.
/// Cost     O(sweeps L count L S)
torch::Tensor sample_potts(const torch::Tensor& couplings, const torch::Tensor& fields, int64_t count, int64_t sweeps, at::Generator generator);

}  // namespace fovea::data
