#pragma once
#include <utility>

#include <torch/torch.h>

namespace fovea::nn {

enum class QkNormKind {
  kLayerNorm,  ///< mean 0 and deviation 1 over a head's channels, as in ViT-22B
  kRms,        ///< root mean square 1
};

struct QkNormOptions {
  explicit QkNormOptions(int64_t channels) : channels_(channels) {}
  TORCH_ARG(int64_t, channels);  ///< C, of one head
  TORCH_ARG(QkNormKind, kind) = QkNormKind::kLayerNorm;
  TORCH_ARG(bool, affine) = true;  ///< learned gain, and for kLayerNorm a shift
  TORCH_ARG(double, epsilon) = 1e-6;
};

/// Normalises queries and keys of each head before their dot product. Without affine part and with the usual scale
/// C^-0.5,
///   <LN(q), LN(k)> / sqrt(C) = sqrt(C) corr(q, k) = <q - mean q, k - mean k> / (deviation(q) deviation(k) sqrt(C)):
/// scores lie within sqrt(C) whatever the features' size, and deviation(q) deviation(k) acts as a temperature.
/// Shapes   q [...,N,C], k [...,M,C] -> the same
/// Names    q_norm.weight, q_norm.bias, k_norm.weight, k_norm.bias [C], as in timm
/// Source   Henry et al. 2020 (QKNorm), arXiv:2010.04245; Dehghani et al. 2023 (ViT-22B), arXiv:2302.05442
class QkNormImpl : public torch::nn::Module {
 public:
  explicit QkNormImpl(const QkNormOptions& options);
  std::pair<torch::Tensor, torch::Tensor> forward(const torch::Tensor& q, const torch::Tensor& k);

  /// The temperature that the norm puts on each pair of plain dot products (centred for kLayerNorm), gains left out:
  /// [...,N,M] = size(q_i) size(k_j), size being the deviation or root mean square.
  torch::Tensor implicit_temperature(const torch::Tensor& q, const torch::Tensor& k) const;

 private:
  /// Deviation or root mean square over the channels, with epsilon inside: [...,1].
  torch::Tensor size_of(const torch::Tensor& x) const;

  struct Norm : torch::nn::Module {
    torch::Tensor weight, bias;
  };
  torch::Tensor normalise(const torch::Tensor& x, const Norm& norm) const;

  QkNormOptions options_;
  std::shared_ptr<Norm> q_norm_, k_norm_;
};
TORCH_MODULE(QkNorm);

}  // namespace fovea::nn
