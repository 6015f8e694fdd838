#pragma once
#include <torch/torch.h>

#include "fovea/nn/rotary.h"

namespace fovea::nn {

/// How the points of a field read each other.
enum class FieldAttentionKind {
  kSoftmax,   ///< softmax(q k^T / sqrt(C)) v
  kFourier,   ///< (q k^T) v / N, with norms on q and k: a learned integral kernel, by quadrature
  kGalerkin,  ///< q (k^T v) / N, with norms on k and v: a projection onto learned basis functions
};

struct FieldAttentionOptions {
  FieldAttentionOptions(int64_t dim, int64_t heads) : dim_(dim), heads_(heads) {}
  TORCH_ARG(int64_t, dim);    ///< E
  TORCH_ARG(int64_t, heads);  ///< H
  TORCH_ARG(int64_t, axes) = 1;  ///< D of the coordinates
  TORCH_ARG(FieldAttentionKind, kind) = FieldAttentionKind::kFourier;
  /// Fields of period 1: positions turn whole times. Otherwise coordinates on [0, 1] are multiplied by 64.
  TORCH_ARG(bool, periodic) = false;
};

/// Attention over the points of a field, with rotary coordinates. Without softmax the sum over points, divided by their
/// number, is the mid-point rule for the integral of k(x, y) v(y) dy: the same weights serve any resolution.
/// Shapes   x [B,N,E], coordinates [N,D] -> [B,N,E]
/// Names    to_q.weight, to_k.weight, to_v.weight, to_out.*; norm1_weight, norm1_bias, norm2_weight, norm2_bias [H,C] (without softmax): of q and k, or of
///          k and v
/// Cost     softmax O(N^2 E), nothing of N x N stored; the other two O(N E C)
/// Errors   ArgumentError: E no multiple of H, too few channels for D axes, shapes that do not fit
/// Source   Cao 2021 (Galerkin transformer), arXiv:2105.14995, equations 4 to 6; rotary coordinates: Li et al. 2023
///          (OFormer), arXiv:2205.13671, section 3.2
class FieldAttentionImpl : public torch::nn::Module {
 public:
  explicit FieldAttentionImpl(const FieldAttentionOptions& options);
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& coordinates);
  /// The weights of values, [B,H,N,N]: softmax rows, or q k^T / N. For looking at, on small fields; without gradient.
  torch::Tensor maps(const torch::Tensor& x, const torch::Tensor& coordinates);

  torch::nn::Linear to_q{nullptr}, to_k{nullptr}, to_v{nullptr}, to_out{nullptr};

 private:
  struct Projected {
    torch::Tensor q, k, v;  // [B,H,N,C]
  };
  Projected project(const torch::Tensor& x, const torch::Tensor& coordinates);

  FieldAttentionOptions options_;
  Rotary rotary_{nullptr};
  torch::Tensor weight1_, bias1_, weight2_, bias2_;
};
TORCH_MODULE(FieldAttention);

}  // namespace fovea::nn
