#pragma once
#include <utility>
#include <vector>

#include <torch/torch.h>

namespace fovea::nn {

/// What the scores know of the displacement between a query and a deformed key.
enum class DeformedBias {
  kNone,
  kTable,      ///< a table over all displacements of the grid, read between its entries: rpe_table
  kLog,        ///< a perceptron of the log-spaced displacement, as Swin-v2's
  kDepthwise,  ///< none on the scores: a depthwise convolution of the queries is added to the output (LePE)
};

/// Where the keys stand before they are moved.
enum class ReferencePoints {
  kCentres,    ///< the centres of the cells into which the keys divide the grid
  kHalfPixel,  ///< (i + 1/2) / (n - 1), as in the published code: half a cell beside them, and beyond the border
};

struct DeformableSelfAttentionOptions {
  DeformableSelfAttentionOptions(std::vector<int64_t> grid, int64_t dim, int64_t heads)
      : grid_(std::move(grid)), dim_(dim), heads_(heads) {}
  TORCH_ARG(std::vector<int64_t>, grid);  ///< Y, X or Z, Y, X of the input
  TORCH_ARG(int64_t, dim);
  TORCH_ARG(int64_t, heads);
  TORCH_ARG(int64_t, groups) = 1;        ///< of channels and heads, each with offsets of its own
  TORCH_ARG(int64_t, stride) = 1;        ///< tokens a key stands for, along each axis
  TORCH_ARG(int64_t, kernel) = 3;        ///< edge of the depthwise convolution that finds the offsets, odd
  TORCH_ARG(double, range_factor) = -1;  ///< f >= 0: offsets within f cells of the keys' grid; negative: anywhere in it
  TORCH_ARG(DeformedBias, bias) = DeformedBias::kTable;
  TORCH_ARG(ReferencePoints, reference) = ReferencePoints::kCentres;
};

/// Self-attention whose keys move to where it is worth looking, the same places for every query.
///   offset = conv_offset(proj_q(x)): depthwise convolution -> layer norm -> GELU -> 1x1 without bias
///   place  = reference + f tanh(offset) / (n - 1), or clamp(reference + offset, -1, 1)
///   out    = proj_out(softmax(q k^T / sqrt(C) + bias(displacement)) v),  k, v = proj_k, proj_v of x read at the places
/// Places are in [-1, 1] from the first to the last token (align_corners), read linearly, 0 outside.
/// Shapes   x, out [B,E,Y,X] or [B,E,Z,Y,X] of the options' grid
/// Names    proj_{q,k,v,out}.{weight [E,E,1,1(,1)],bias}, conv_offset.0.{weight,bias}, conv_offset.1.norm.{weight,bias},
///          conv_offset.3.weight; rpe_table [H,2Y-1,2X-1], with kLog rpe_table.{0.weight,0.bias,2.weight}, with
///          kDepthwise rpe_table.{weight,bias}. Offsets are in axis order, (y,x) or (z,y,x)
/// Source   Xia et al. 2022 (DAT), arXiv:2201.00520; 2023 (DAT++), arXiv:2309.01430
class DeformableSelfAttentionImpl : public torch::nn::Module {
 public:
  explicit DeformableSelfAttentionImpl(const DeformableSelfAttentionOptions& options);
  torch::Tensor forward(const torch::Tensor& x);

  /// Where the keys go, for arrows: reference [M,D] and places [B,groups,M,D], in tokens, axis order.
  std::pair<torch::Tensor, torch::Tensor> places(const torch::Tensor& x);

  const DeformableSelfAttentionOptions& options() const { return options_; }

 private:
  torch::Tensor reference_points(const torch::TensorOptions& like) const;  // [M,D] in [-1,1]
  torch::Tensor moved(const torch::Tensor& q);                             // [B,groups,M,D] in [-1,1]
  torch::Tensor score_bias(const torch::Tensor& places);                   // [B,H,N,M]

  DeformableSelfAttentionOptions options_;
  std::vector<int64_t> keys_;  // grid of the keys
  torch::Tensor q_weight_, q_bias_, k_weight_, k_bias_, v_weight_, v_bias_, out_weight_, out_bias_;
  torch::Tensor depthwise_weight_, depthwise_bias_, to_offset_, table_, lepe_weight_, lepe_bias_;
  torch::nn::LayerNorm norm_{nullptr};
  torch::nn::Linear log_in_{nullptr}, log_out_{nullptr};
};
TORCH_MODULE(DeformableSelfAttention);

}  // namespace fovea::nn
