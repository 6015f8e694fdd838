#pragma once
#include <torch/torch.h>

namespace fovea::nn {

struct NystromAttentionOptions {
  NystromAttentionOptions(int64_t dim, int64_t heads) : dim_(dim), heads_(heads) {}
  TORCH_ARG(int64_t, dim);               ///< E
  TORCH_ARG(int64_t, heads);             ///< H, divides E
  TORCH_ARG(int64_t, landmarks) = 256;   ///< m
  TORCH_ARG(int64_t, iterations) = 6;    ///< of the pseudo-inverse
  TORCH_ARG(int64_t, kernel) = 33;       ///< tokens that the residual on the values spans; odd
  TORCH_ARG(double, dropout) = 0;        ///< of the result
};

/// Self-attention whose N x N matrix is replaced by three thin ones through m landmarks.
///   q~, k~  = means of ceil(N/m) consecutive queries, keys;  zeros are put before the first token until m divides N
///   out     = softmax(q k~^T / sqrt C) pinv(softmax(q~ k~^T / sqrt C)) softmax(q~ k^T / sqrt C) v + conv(v)
///   pinv    z <- z (13 - az (15 - az (7 - az))) / 4, from z = a^T / (largest row sum * largest column sum of |a|)
/// Computed from right to left as two ops::attention and one m x m product: the N x m matrices are never held. conv is
/// depthwise along the tokens, one kernel a head. The start of pinv takes the largest sums over the heads together, as
/// the public code does.
/// Shapes   x [B,N,E] -> [B,N,E]
/// Names    of lucidrains' nystrom-attention: to_qkv.weight, to_out.0.*, res_conv.weight
/// Cost     O(B*N*m*E) time, O(B*N*E + B*H*m^2) memory
/// Errors   ArgumentError: shapes
/// Source   Xiong et al. 2021 (Nystromformer), arXiv:2102.03902, equations 13 to 15
class NystromAttentionImpl : public torch::nn::Module {
 public:
  explicit NystromAttentionImpl(const NystromAttentionOptions& options);
  torch::Tensor forward(const torch::Tensor& x);

  /// While on, forward keeps what rows() needs.
  void set_capture(bool on);
  /// The approximate attention of one query of the last captured forward, without the residual: [B,H,N]. A row sums to
  /// about 1; the pseudo-inverse can make weights negative. Cost O(B*H*m*N).
  torch::Tensor row(int64_t query) const;

 private:
  struct Captured {
    torch::Tensor queries, keys, query_landmarks, key_landmarks, inverse;
    int64_t padding = 0;
  };
  NystromAttentionOptions options_;
  bool capture_ = false;
  Captured captured_;
  torch::nn::Linear to_qkv_{nullptr};
  torch::nn::Sequential to_out_{nullptr};
  torch::nn::Conv2d res_conv_{nullptr};
};
TORCH_MODULE(NystromAttention);

/// The iteration above: about the Moore-Penrose inverse of `a` [B,H,m,m], a row-stochastic matrix.
torch::Tensor iterated_pseudo_inverse(const torch::Tensor& a, int64_t iterations);

}  // namespace fovea::nn
