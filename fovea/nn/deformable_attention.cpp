#include "fovea/nn/deformable_attention.h"

#include <cmath>
#include <numbers>

#include "fovea/nn/trace.h"
#include "fovea/ops/deformable_attention.h"

namespace fovea::nn {

torch::Tensor spread_directions(int64_t heads, int64_t axes) {
  const auto m = torch::arange(heads, torch::kFloat64);
  torch::Tensor directions;
  if (axes == 2) {
    const auto angle = m * (2 * std::numbers::pi / double(heads));
    directions = torch::stack({angle.cos(), angle.sin()}, 1);
  } else {
    const auto z = 1 - 2 * (m + 0.5) / double(heads), angle = m * (std::numbers::pi * (3 - std::sqrt(5.0)));
    const auto across = (1 - z * z).sqrt();
    directions = torch::stack({across * angle.cos(), across * angle.sin(), z}, 1);
  }
  return directions / directions.abs().amax(1, /*keepdim=*/true);
}

MultiScaleDeformableAttentionImpl::MultiScaleDeformableAttentionImpl(const MultiScaleDeformableAttentionOptions& options)
    : options_(options) {
  const auto& o = options_;
  TORCH_CHECK(o.heads() > 0 && o.dim() % o.heads() == 0, "deformable attention: ", o.heads(),
              " heads do not divide the width ", o.dim());
  TORCH_CHECK(o.axes() == 2 || o.axes() == 3, "deformable attention: axes is ", o.axes(), ", expected 2 or 3");
  TORCH_CHECK(o.levels() > 0 && o.points() > 0, "deformable attention: levels and points are ", o.levels(), " and ",
              o.points(), ", expected 1 or more");
  const int64_t all = o.heads() * o.levels() * o.points();
  sampling_offsets = register_module("sampling_offsets", torch::nn::Linear(o.dim(), all * o.axes()));
  attention_weights = register_module("attention_weights", torch::nn::Linear(o.dim(), all));
  value_proj = register_module("value_proj", torch::nn::Linear(o.dim(), o.dim()));
  output_proj = register_module("output_proj", torch::nn::Linear(o.dim(), o.dim()));
  reset_parameters();
}

void MultiScaleDeformableAttentionImpl::reset_parameters() {
  torch::NoGradGuard no_grad;
  const auto& o = options_;
  for (auto& layer : {sampling_offsets, attention_weights, value_proj, output_proj})
    layer->weight.zero_(), layer->bias.zero_();
  const auto steps = torch::arange(1, o.points() + 1, torch::kFloat64).view({1, 1, -1, 1});  // h l k d
  const auto rings = spread_directions(o.heads(), o.axes()).view({o.heads(), 1, 1, o.axes()}) * steps;
  sampling_offsets->bias.copy_(rings.expand({o.heads(), o.levels(), o.points(), o.axes()}).flatten());
  torch::nn::init::xavier_uniform_(value_proj->weight);
  torch::nn::init::xavier_uniform_(output_proj->weight);
}

std::pair<torch::Tensor, torch::Tensor> MultiScaleDeformableAttentionImpl::points(const torch::Tensor& query) {
  const auto& o = options_;
  const int64_t B = query.size(0), Q = query.size(1);
  const auto offsets = sampling_offsets(query).view({B, Q, o.heads(), o.levels(), o.points(), o.axes()});
  const auto weights = attention_weights(query).view({B, Q, o.heads(), o.levels() * o.points()}).softmax(-1);
  return {offsets, weights.view({B, Q, o.heads(), o.levels(), o.points()})};
}

torch::Tensor MultiScaleDeformableAttentionImpl::forward(const torch::Tensor& query, const torch::Tensor& reference,
                                                         const torch::Tensor& input, const torch::Tensor& spatial_shapes,
                                                         const std::optional<torch::Tensor>& key_mask) {
  const auto& o = options_;
  const int64_t D = o.axes();
  TORCH_CHECK(query.dim() == 3 && query.size(2) == o.dim(), "deformable attention: query is ", query.sizes(),
              ", expected [B,Q,", o.dim(), "]");
  TORCH_CHECK(input.dim() == 3 && input.size(2) == o.dim(), "deformable attention: input is ", input.sizes(),
              ", expected [B,S,", o.dim(), "]");
  TORCH_CHECK(reference.dim() == 4 && reference.size(2) == o.levels() && (reference.size(3) == D || reference.size(3) == 2 * D),
              "deformable attention: reference is ", reference.sizes(), ", expected [B,Q,", o.levels(), ",", D, "] or boxes [B,Q,",
              o.levels(), ",", 2 * D, "]");
  TORCH_CHECK(spatial_shapes.dim() == 2 && spatial_shapes.size(0) == o.levels() && spatial_shapes.size(1) == D,
              "deformable attention: spatial_shapes is ", spatial_shapes.sizes(), ", expected [", o.levels(), ",", D, "]");
  auto value = value_proj(input);
  if (key_mask) value = value.masked_fill(~key_mask->unsqueeze(-1), 0);
  value = value.view({input.size(0), input.size(1), o.heads(), o.dim() / o.heads()});

  const auto [offsets, weights] = points(query);
  // b q 1 l 1 d; the sizes of a level turned from axis order to that of points
  const auto at = reference.unsqueeze(2).unsqueeze(4);
  const auto unit = reference.size(3) == D
                        ? 1 / spatial_shapes.flip(1).to(query.scalar_type()).view({1, 1, 1, o.levels(), 1, D})
                        : at.narrow(-1, D, D) * (0.5 / double(o.points()));
  const auto locations = at.narrow(-1, 0, D) + offsets * unit;
  return traced(this, output_proj(ops::deformable_attention(value, spatial_shapes, locations, weights)));
}

}  // namespace fovea::nn
