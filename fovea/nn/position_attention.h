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
  TORCH_ARG(int64_t, waves) = 4;  ///< F: half turns on [0, 1] that the perceptron is given; of periodic fields whole turns
  TORCH_ARG(bool, symmetric) = false;  ///< queries are keys: k(x, y) = k(y, x)
  TORCH_ARG(bool, periodic) = false;   ///< as in FieldAttention
};

/// Attention whose weights depend on positions alone, without softmax: an integral operator with a learned kernel.
///   k(x, y) = sum_h w_h <R(x) a_h(x), R(y) b_h(y)> / sqrt(C);   u(x_i) = 1/M sum_j k(x_i, y_j) f(y_j)
/// with R the rotation by rotary coordinates, a and b a perceptron of the position p: of p (unless periodic), cos pi k p and
/// sin pi k p, k = 1..F. Of p alone it stays too smooth to find kernels that oscillate.
/// Shapes   kernel: x [N,D], y [M,D] -> [N,M]; forward: f [B,M], x, y -> [B,N]
/// Names    place.0.* (p of all axes, then for each k cosines and sines of all axes), place.2.*, mix [H]
/// Cost     O(N M H C), the kernel is stored: for fields of some thousand points
/// Source   attention by position: Chen & Wu 2024 (PiT), arXiv:2405.09285; rotary coordinates as in FieldAttention;
///          waves before a perceptron: Tancik et al. 2020, arXiv:2006.10739
class PositionAttentionImpl : public torch::nn::Module {
 public:
  explicit PositionAttentionImpl(const PositionAttentionOptions& options);
  torch::Tensor kernel(const torch::Tensor& x, const torch::Tensor& y);
  torch::Tensor forward(const torch::Tensor& f, const torch::Tensor& x, const torch::Tensor& y);

  torch::Tensor mix;

 private:
  torch::Tensor described(const torch::Tensor& x) const;
  torch::Tensor turned(const torch::Tensor& x, int64_t which);

  PositionAttentionOptions options_;
  torch::nn::Sequential place_{nullptr};
  Rotary rotary_{nullptr};
};
TORCH_MODULE(PositionAttention);

}  // namespace fovea::nn
