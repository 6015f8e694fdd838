#include "fovea/nn/gated_fusion.h"

#include "fovea/core/error.h"

namespace fovea::nn {

namespace {
void check(const torch::Tensor& x, int64_t batch, int64_t dim, const char* name) {
  if (x.dim() != 2 || x.size(0) != batch || x.size(1) != dim)
    throw ArgumentError(c10::str("gated_fusion: ", name, " is ", x.sizes(), ", expected [", batch, ",", dim, "]"));
}

torch::Tensor given(const torch::Tensor& has, const torch::Tensor& x, const char* name) {
  if (!has.defined()) return torch::ones({x.size(0), 1}, x.options().dtype(torch::kBool));
  if (has.dim() != 1 || has.size(0) != x.size(0) || has.scalar_type() != torch::kBool)
    throw ArgumentError(c10::str("gated_fusion: ", name, " is ", has.scalar_type(), " ", has.sizes(), ", expected bool [",
                                 x.size(0), "]"));
  return has.unsqueeze(1);
}
}  // namespace

GatedFusionImpl::GatedFusionImpl(const GatedFusionOptions& o) : options_(o) {
  if (o.image_dim() < 1 || o.text_dim() < 1 || o.dim() < 1)
    throw ArgumentError(c10::str("gated_fusion: image_dim is ", o.image_dim(), ", text_dim ", o.text_dim(), ", dim ", o.dim(),
                                 ", expected 1 or more each"));
  if (o.gates() != 1 && o.gates() != o.dim())
    throw ArgumentError(c10::str("gated_fusion: gates is ", o.gates(), ", expected 1 or dim (", o.dim(), ")"));
  const auto linear = [&](int64_t in, int64_t out) {
    return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(o.bias()));
  };
  image = register_module("image", linear(o.image_dim(), o.dim()));
  text = register_module("text", linear(o.text_dim(), o.dim()));
  gate = register_module("gate", linear(o.image_dim() + o.text_dim(), o.gates()));
}

Fused GatedFusionImpl::forward(const torch::Tensor& v, const torch::Tensor& t, const torch::Tensor& has_image,
                               const torch::Tensor& has_text) {
  check(v, v.size(0), options_.image_dim(), "the image's vector");
  check(t, v.size(0), options_.text_dim(), "the text's vector");
  const auto see = given(has_image, v, "has_image"), read = given(has_text, t, "has_text");
  // What is missing may be NaN: it is taken out before any arithmetic, so that neither value nor gradient leaks.
  const auto zero = torch::zeros({}, v.options());
  const auto seen = torch::where(see, v, zero), said = torch::where(read, t, zero);
  const auto weight = torch::sigmoid(gate(torch::cat({seen, said}, 1)));
  const auto z = torch::where(see, torch::where(read, weight, torch::ones_like(weight)), torch::zeros_like(weight));
  const auto from_text = torch::where(read, torch::tanh(text(said)), zero);
  return {z * torch::tanh(image(seen)) + (1 - z) * from_text, z};
}

}  // namespace fovea::nn
