#pragma once
#include <torch/torch.h>

#include "fovea/nn/rotary.h"

namespace fovea::nn {

struct PositionAttentionOptions {
  PositionAttentionOptions(int64_t axes, int64_t heads, int64_t channels) : axes_(axes), heads_(heads), channels_(channels) {}
  TORCH_ARG(int64_t, axes);      ///< D of the coordinates
  TORCH_ARG(int64_t, heads);     ///< H
  TORCH_ARG(int64_t, channels);  ///< C of a head
  TORCH_ARG(int64_t, hidden) = 32;
  TORCH_ARG(bool, symmetric) = false;  ///< queries are keys: k(x, y) = k(y, x)
  TORCH_ARG(bool, periodic) = false;   ///< as in FieldAttention
};

/// Attention whose weights depend on positions alone, without softmax: an integral operator with a learned kernel.
///   k(x, y) = sum_h w_h <R(x) a_h(x), R(y) b_h(y)> / sqrt(C);   u(x_i) = 1/M sum_j k(x_i, y_j) f(y_j)
/// with R the rotation by rotary coordinates, a and b a perceptron of the position.
/// Shapes   kernel: x [N,D], y [M,D] -> [N,M]; forward: f [B,M], x, y -> [B,N]
/// Names    place.0.*, place.2.*, mix [H]
/// Cost     O(N M H C), the kernel is stored: for fields of some thousand points
/// Source   attention by position: Chen & Wu 2024 (PiT), arXiv:2405.09285; rotary coordinates as in FieldAttention
class PositionAttentionImpl : public torch::nn::Module {
 public:
  explicit PositionAttentionImpl(const PositionAttentionOptions& options);
  torch::Tensor kernel(const torch::Tensor& x, const torch::Tensor& y);
  torch::Tensor forward(const torch::Tensor& f, const torch::Tensor& x, const torch::Tensor& y);

  torch::Tensor mix;

 private:
  torch::Tensor turned(const torch::Tensor& x, int64_t which);

  PositionAttentionOptions options_;
  torch::nn::Sequential place_{nullptr};
  Rotary rotary_{nullptr};
};
TORCH_MODULE(PositionAttention);

}  // namespace fovea::nn
