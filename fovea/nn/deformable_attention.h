#pragma once
#include <optional>
#include <utility>

#include <torch/torch.h>

namespace fovea::nn {

struct MultiScaleDeformableAttentionOptions {
  MultiScaleDeformableAttentionOptions(int64_t dim, int64_t heads) : dim_(dim), heads_(heads) {}
  TORCH_ARG(int64_t, dim);
  TORCH_ARG(int64_t, heads);
  TORCH_ARG(int64_t, levels) = 4;
  TORCH_ARG(int64_t, points) = 4;  ///< of a head and level
  TORCH_ARG(int64_t, axes) = 2;    ///< 2 or 3
};

/// Attention that learns where to look: each query names K points a head and level, and their weights.
///   out = output_proj(sum_l sum_k A[h,l,k] value_proj(input)_l(reference_l + offset[h,l,k] / size_l))
///   A = softmax over l and k of attention_weights(query),  offset = sampling_offsets(query), in pixels of level l
/// A starts even, offsets as rings: head m looks k + 1 pixels along the m-th of H directions, spread over the circle (in
/// 3-D over the sphere, on a golden spiral), whatever the query.
/// Shapes   query [B,Q,E]; reference [B,Q,Lv,D] in [0,1], or boxes [B,Q,Lv,2D]: centres, then sizes, whose halves divided
///          by K are the unit of the offsets; input [B,S,E], the levels one after the other; spatial_shapes int64 [Lv,D],
///          (Y,X) or (Z,Y,X); key_mask bool [B,S], true = takes part; out [B,Q,E]
/// Order    points are (x,y) or (x,y,z): ops::deformable_attention
/// Names    sampling_offsets, attention_weights, value_proj, output_proj: {weight,bias}
/// Errors   caller error on heads that do not divide dim and on sizes
/// Source   Zhu et al. 2021, arXiv:2010.04159, equation 3
class MultiScaleDeformableAttentionImpl : public torch::nn::Module {
 public:
  explicit MultiScaleDeformableAttentionImpl(const MultiScaleDeformableAttentionOptions& options);
  torch::Tensor forward(const torch::Tensor& query, const torch::Tensor& reference, const torch::Tensor& input,
                        const torch::Tensor& spatial_shapes, const std::optional<torch::Tensor>& key_mask = {});

  /// Where the queries look: offsets [B,Q,H,Lv,K,D] in pixels (of boxes: in their unit) and weights [B,Q,H,Lv,K].
  std::pair<torch::Tensor, torch::Tensor> points(const torch::Tensor& query);

  /// Weights as they start: see above. Draws from torch's default generator.
  void reset_parameters();

  const MultiScaleDeformableAttentionOptions& options() const { return options_; }

  torch::nn::Linear sampling_offsets{nullptr}, attention_weights{nullptr}, value_proj{nullptr}, output_proj{nullptr};

 private:
  MultiScaleDeformableAttentionOptions options_;
};
TORCH_MODULE(MultiScaleDeformableAttention);

/// H directions spread over the circle (D = 2) or the sphere (D = 3), their largest coordinate 1: [H,D] float64.
torch::Tensor spread_directions(int64_t heads, int64_t axes);

}  // namespace fovea::nn
