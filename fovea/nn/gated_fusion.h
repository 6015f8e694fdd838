#pragma once
#include <torch/torch.h>

namespace fovea::nn {

struct GatedFusionOptions {
  GatedFusionOptions(int64_t image_dim, int64_t text_dim, int64_t dim)
      : image_dim_(image_dim), text_dim_(text_dim), dim_(dim), gates_(dim) {}
  TORCH_ARG(int64_t, image_dim);
  TORCH_ARG(int64_t, text_dim);
  TORCH_ARG(int64_t, dim);    ///< E, of the result
  TORCH_ARG(int64_t, gates);  ///< E: a gate for each unit; 1: one for the case
  TORCH_ARG(bool, bias) = false;
};

/// A case's modalities in one vector, and how much of it is the image's.
struct Fused {
  torch::Tensor vector;  // [B,E]
  torch::Tensor gate;    // z, [B,gates]: 1 is all image, 0 all text
};

/// Gated multimodal unit.
///   z = sigmoid(gate([v; t])),  h = z * tanh(image(v)) + (1 - z) * tanh(text(t))
/// A modality that a case lacks takes no part, whatever its vector holds, and has no gradient: z = 0 without image,
/// z = 1 without text. Without both h = 0, and z = 0.
/// Shapes   v [B,image_dim], t [B,text_dim]; has_image, has_text bool [B], undefined: all have it
/// Names    image.weight [E,image_dim], text.weight [E,text_dim], gate.weight [gates,image_dim+text_dim], with bias
///          *.bias
/// Errors   ArgumentError: other shapes, gates other than 1 and E
/// Source   Arevalo et al. 2017, arXiv:1702.01992, section 3.1 (bimodal unit, no bias); missing modalities are ours
class GatedFusionImpl : public torch::nn::Module {
 public:
  explicit GatedFusionImpl(const GatedFusionOptions& options);
  Fused forward(const torch::Tensor& v, const torch::Tensor& t, const torch::Tensor& has_image = {},
                const torch::Tensor& has_text = {});

  torch::nn::Linear image{nullptr}, text{nullptr}, gate{nullptr};

 private:
  GatedFusionOptions options_;
};
TORCH_MODULE(GatedFusion);

}  // namespace fovea::nn
