#pragma once
#include <utility>

#include <torch/torch.h>

namespace fovea::nn {

enum class QkNormKind {
  kLayerNorm,  ///< mean 0 and deviation 1 over a head's channels, as in ViT-22B
  kRms,        ///< root mean square 1
  kL2,         ///< length 1; scores are g <q, k> with a learned g instead of C^-0.5, as in QKNorm
};

struct QkNormOptions {
  explicit QkNormOptions(int64_t channels) : channels_(channels) {}
  TORCH_ARG(int64_t, channels);  ///< C, of one head
  TORCH_ARG(QkNormKind, kind) = QkNormKind::kLayerNorm;
  TORCH_ARG(int64_t, joint_heads) = 1;  ///< heads normalised as one vector: 1 (ViT-22B, timm) or all, the whole width
  TORCH_ARG(bool, affine) = true;       ///< learned gain, and for kLayerNorm a shift; of kL2 the factor g
  TORCH_ARG(double, epsilon) = 1e-6;
  TORCH_ARG(int64_t, tokens) = 0;  ///< L, of kL2: the usual number of keys, at least 2; g begins as log2(L^2 - L)
};

/// Normalises queries and keys of each head before their dot product. Without affine part and with the usual scale
/// C^-0.5,
///   <LN(q), LN(k)> / sqrt(C) = sqrt(C) corr(q, k) = <q - mean q, k - mean k> / (deviation(q) deviation(k) sqrt(C)):
/// scores lie within sqrt(C) whatever the features' size, and deviation(q) deviation(k) acts as a temperature. Of kL2
/// queries and keys are unit vectors, scores g cos(q, k): g is multiplied to q, and the scale that belongs to it is 1.
/// Shapes   q [...,N,C], k [...,M,C] -> the same; with joint_heads J > 1 q [...,J,N,C], k [...,J,M,C]
/// Names    q_norm.weight, q_norm.bias, k_norm.weight, k_norm.bias [J C], as in timm; g [1] of kL2
/// Source   Henry et al. 2020 (QKNorm), arXiv:2010.04245; Dehghani et al. 2023 (ViT-22B), arXiv:2302.05442
class QkNormImpl : public torch::nn::Module {
 public:
  explicit QkNormImpl(const QkNormOptions& options);
  std::pair<torch::Tensor, torch::Tensor> forward(const torch::Tensor& q, const torch::Tensor& k);

  /// What to multiply the dot products of the results with: C^-0.5, or 1 for kL2.
  double scale() const;

  /// The temperature that the norm puts on each pair of plain dot products (centred for kLayerNorm), gains left out:
  /// [...,N,M] = size(q_i) size(k_j), size being the deviation, root mean square or length.
  torch::Tensor implicit_temperature(const torch::Tensor& q, const torch::Tensor& k) const;

 private:
  struct Norm : torch::nn::Module {
    torch::Tensor weight, bias;
  };
  int64_t width() const { return options_.channels() * options_.joint_heads(); }
  /// What is normalised as one vector brought to the last axis, and back: [...,J,N,C] <-> [...,N,JC].
  torch::Tensor joined(const torch::Tensor& x) const;
  torch::Tensor split(const torch::Tensor& x) const;
  /// Deviation, root mean square or length over the last axis, with epsilon inside: [...,1].
  torch::Tensor size_of(const torch::Tensor& x) const;
  torch::Tensor normalise(const torch::Tensor& x, const Norm& norm) const;

  QkNormOptions options_;
  std::shared_ptr<Norm> q_norm_, k_norm_;
  torch::Tensor g_;
};
TORCH_MODULE(QkNorm);

}  // namespace fovea::nn
