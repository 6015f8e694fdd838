#pragma once
#include <torch/torch.h>

namespace fovea::nn {

struct MlpOptions {
  MlpOptions(int64_t dim, int64_t hidden) : dim_(dim), hidden_(hidden) {}
  TORCH_ARG(int64_t, dim);
  TORCH_ARG(int64_t, hidden);
  TORCH_ARG(double, dropout) = 0;
};

/// Two-layer perceptron of a transformer block, with exact (erf) GELU.
///   y = linear2(gelu(linear1(x)))
/// Shapes   x, y [..., E]
/// On the CPU in float32 one pass over x (ops::mlp), which keeps no hidden values for backward.
class MlpImpl : public torch::nn::Module {
 public:
  explicit MlpImpl(const MlpOptions& options);
  torch::Tensor forward(const torch::Tensor& x);
  /// x + forward(norm(x)).
  torch::Tensor add_to(const torch::Tensor& x, const torch::nn::LayerNorm& norm);

  torch::nn::Linear linear1{nullptr}, linear2{nullptr};
  torch::nn::Dropout drop{nullptr};

 private:
  torch::Tensor run(const torch::Tensor& x, const torch::nn::LayerNorm& norm, bool add_input);
};
TORCH_MODULE(Mlp);

}  // namespace fovea::nn
