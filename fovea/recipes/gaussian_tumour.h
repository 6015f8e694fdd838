#pragma once
#include <torch/torch.h>

#include <cstdint>
#include <optional>

namespace fovea::recipes {

constexpr int64_t kTumourFeatures = 1;
constexpr double kScaleUnit_vox = 8;

/// How follow-up scans of Gaussian tumours are made up.
struct TumourOptions {
  int64_t axes = 2;         // 2 or 3
  int64_t edge_vox = 48;    // of the square or cube
  double smallest_vox = 1.5, largest_vox = 9;  // sigma at the earlier scan, drawn evenly between the two
  std::optional<double> sigma_vox = {};        // all of this size instead
  double move = 0.1;        // standard deviation of the shift since then, along each axis, in sigma
  double grow = 0.1;        // standard deviation of the relative growth since then
  double noise = 0.05;      // standard deviation of a voxel; the tumour's peak is 1
};

/// Simulated scans exp(-|v - centre|^2 / 2 sigma^2) + noise. An earlier scan told place and size; since then the tumour
/// has moved and grown a little, and by how much is what a reader shall say from the new scan.
struct Tumours {
  torch::Tensor voxels;    // [B,S] f32, the square or cube row by row
  torch::Tensor earlier;   // [B,S]: the earlier scan, without noise
  torch::Tensor at_vox;    // [B,D]: centre at the earlier scan, x first; anywhere within a voxel
  torch::Tensor features;  // [B,1]: sigma at the earlier scan, in units of 8 voxels
  torch::Tensor sigma_vox; // [B] at the earlier scan
  torch::Tensor moved;     // [B,D]: shift since then, in `move` sigma; x first
  torch::Tensor grown;     // [B,1]: growth since then, in `grow`
};
Tumours draw_tumours(int64_t count, const TumourOptions& options, at::Generator generator);

}  // namespace fovea::recipes
