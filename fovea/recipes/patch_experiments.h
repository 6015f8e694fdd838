#pragma once
#include <torch/torch.h>

#include <string>

// What `fovea check`, `fovea claims` and the lessons find out about patches, each computed in one place.
namespace fovea::recipes {

/// Tokens that the patch embedding layer makes of a cube of voxels. The layer is run.
int64_t tokens_of(int64_t edge, int64_t patch);

/// volume [Z,Y,X] cut into patches, padded with zeros at the far ends -> [tokens, patch^3], and back to `shape`.
torch::Tensor patchify(const torch::Tensor& volume, int64_t patch);
torch::Tensor unpatchify(const torch::Tensor& patches, int64_t patch, at::IntArrayRef shape);

/// Voxels that differ after patchify() and unpatchify(): must be 0.
int64_t voxels_changed_by_patchify(const torch::Tensor& volume, int64_t patch);

/// Largest difference between the convolution of the patch embedding layer and flattening each patch followed by one
/// linear map with the same weights: anisotropic patches, two channels, a size that no patch divides.
double patch_projection_difference(uint64_t seed);

/// Largest difference between the outputs of the two forms of the embedding block, the weights of one converted for the
/// other; and of a weight converted there and back.
struct FormDifference {
  double outputs = 0, weight = 0;
};
FormDifference patch_forms_difference(uint64_t seed);

/// Largest difference of the sin-cos table of an uneven grid from sines and cosines of position * 10000^(-k / (E/6)).
double sincos_difference();

/// Largest difference of a random position table, resized to a grid three times as fine, from the original at the
/// tokens whose centres coincide.
double resized_positions_difference(uint64_t seed);

/// A scan of 181x217x181 voxels: the Colin27 T1 where Debian's mricron-data is installed, else smooth random numbers.
struct SampleScan {
  torch::Tensor voxels;  // [Z,Y,X] f32
  bool real = false;
};
SampleScan sample_scan(uint64_t seed);

}  // namespace fovea::recipes
