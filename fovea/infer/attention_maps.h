#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "fovea/core/geometry.h"
#include "fovea/infer/sliding_window.h"
#include "fovea/models/network.h"

namespace fovea::infer {

/// Where the token of a voxel looks in one attention layer: the softmax weights that the forward pass used, not an
/// approximation of them.
struct LayerAttention {
  std::string layer;         // module name: "swinViT.layers1.0.blocks.0.attn"
  Triple grid{};             // tokens of the layer along Z, Y, X
  Triple token_voxels{};     // voxels of the window that make up a token
  Triple query{};            // the token that holds the asked voxel
  torch::Tensor map;         // [H,pz,py,px] f32: each voxel has the weight of its token; summed over tokens it is 1 - padded_share
  torch::Tensor padded_share;  // [H] f32: weight on positions that exist only because the layer padded its grid
};

/// All layers for one window of the sliding window.
struct WindowAttentionMaps {
  Triple start{};         // first voxel of the window in the image; negative where the image was padded
  Geometry geometry;      // of the window
  double blend_weight = 0;  // of the asked voxel in this window, by the window_weights()
  std::vector<LayerAttention> layers;  // in the order of the network
};

/// kMostCentral: the one window in which the voxel has the largest weight; kAll: every window that holds it.
enum class WindowChoice { kMostCentral, kAll };

/// Where each head of each attention layer looks when the network labels `voxel`: one forward pass a window, then the rows
/// of that token.
/// Shapes   image [C,Z,Y,X] on `grid`; voxel Z, Y, X. The network is put into evaluation mode.
/// Errors   ArgumentError: a voxel outside the image, a patch that is not a multiple of what the network needs, a network
///          without attention layers.
/// Cost     a forward pass a window; memory sum over layers of H * patch voxels * 4 bytes beside it.
std::vector<WindowAttentionMaps> attention_maps(const torch::Tensor& image, const Geometry& grid, models::NetworkImpl& network,
                                                const SlidingWindowConfig& config, const Triple& voxel,
                                                WindowChoice windows = WindowChoice::kMostCentral);

/// The voxel (Z, Y, X) whose centre is nearest to a point in RAS+ mm. Errors: ArgumentError when the point is outside.
Triple voxel_at(const Geometry& grid, const Point& mm);

/// A window's map [C,pz,py,px] in its place in an image of `shape`: [C,Z,Y,X], 0 elsewhere. For data::restore_map().
torch::Tensor placed_in_image(const torch::Tensor& map, const Triple& start, const Triple& shape);

/// What one head does on average over sampled queries.
struct HeadReport {
  std::string layer;
  int64_t head = 0, queries = 0;
  double entropy_nats = 0;       // mean of -sum_j w_j ln w_j
  double effective_keys = 0;     // exp(entropy_nats)
  double distance_mm = 0;        // mean of sum_j w_j |x_i - x_j| between token centres, padded positions left out
  double own_region_share = 0;   // mean weight on voxels of the query's own region; nan without regions
  double own_region_uniform = 0; // the same if all keys in the query's window had equal weight: what no preference gives
  double padded_share = 0;
};

struct HeadReportOptions {
  int64_t windows = 4;            // sampled among all windows of the image, without repetition
  int64_t queries_per_window = 64;  // tokens sampled in each layer
  uint64_t seed = 0;
};

/// One line for every layer and head.
/// Shapes   regions [Z,Y,X] integer labels on `grid` (e.g. predict_labels()), or undefined. A token's region is the label
///          that most of its voxels have, the smaller one of two equal.
/// Errors   as attention_maps().
std::vector<HeadReport> head_report(const torch::Tensor& image, const Geometry& grid, models::NetworkImpl& network,
                                    const SlidingWindowConfig& config, const torch::Tensor& regions = {},
                                    const HeadReportOptions& options = {});

}  // namespace fovea::infer
