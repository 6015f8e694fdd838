#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>
#include <vector>

namespace fovea::ops {

/// What attention() does beside softmax(scale q k^T + bias) v. Query i stands at key i + (M - N): the last query at the
/// last key.
struct AttentionOptions {
  bool causal = false;                          ///< no query sees keys behind its place
  std::optional<double> scale = {};             ///< C^-0.5
  int64_t window_left = -1, window_right = -1;  ///< keys before and behind its place that a query sees; negative: all
  double softcap = 0;                           ///< c > 0: c tanh(score / c) in place of scale <q, k>
  std::vector<double> alibi_slopes = {};        ///< [H]: scores fall by slope times the distance in tokens
  double dropout = 0;                           ///< probability in [0, 1) that a weight is dropped, the rest grow
  int64_t dropout_seed = 0;                     ///< Philox key of which ones: the same seed drops the same
};

/// Dense multi-head attention, self or cross; never builds the N×M scores. Torch op `fovea::attention`.
///   t[b,h,i,j] = scale * <q[b,h,i], k[b,hk,j]>,   hk = h / (H / Hk);   with a soft cap c: c tanh(t / c) in its place
///   s[b,h,i,j] = t[b,h,i,j] + bias[b,h,i,j] - slope[h] |i + (M - N) - j|
///   out[b,h,i] = sum_j softmax_j(s[b,h,i,:]) * drop[b,h,i,j] * v[b,hk,j],   lse[b,h,i] = log sum_j exp(s[b,h,i,j])
/// Shapes   q [B,H,N,C]; k [B,Hk,M,C], v [B,Hk,M,Cv], H a multiple of Hk; out [B,H,N,Cv], lse [B,H,N]
///          bias broadcastable to [B,H,N,M]; key_mask bool [B,M], true = the key takes part (as in torch's SDPA)
/// Meaning  Masked keys and keys outside the window are never read into a sum. A query without any key gives out = 0,
///          lse = -inf and no gradient. drop is 0 or 1 / (1 - dropout), drawn from (seed, b, h, i, j) alone and so
///          again in backward: see kernels/attention.h.
/// Gradient q, k, v and bias (reduced to the shape it was given in); lse is not differentiable, nor is the gradient.
///          Saved for backward: the inputs, out and lse.
/// Dtypes   q, k, v alike: f32; f64 (reference kernel); bf16 (widened on load and computed in f32, out rounded to
/// bf16).
///          bias: f32 for f32 and bf16, or bf16 for bf16; f64 for f64. lse: f64 for f64, else f32.
///          Autocast casts q, k, v to its dtype and leaves bias, which is added to f32 scores; f64 stays f64.
/// Layout   any strides. out and the gradients lie tokens before heads, [B,N,H,C] in memory, if q (k, v) does.
/// Numerics f32 accumulation, same bits for any number of threads. Errors of R4.1 are tested.
/// Errors   caller error on rank, size, dtype or device: see check_attention().
/// Cost     O(B*H*N*M*C) time, with a window of w keys O(B*H*N*w*C); memory beside the tensors O(B*H*N). A soft cap
///          doubles the time or so, dropout adds half.
/// Source   Vaswani et al. 2017, eq. 1; soft cap: Gemma Team 2024, section 2; slopes: Press et al. 2022 (ALiBi), section
///          3. Definition: kernels/reference/attention.cpp
std::tuple<at::Tensor, at::Tensor> attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                             const std::optional<at::Tensor>& bias,
                                             const std::optional<at::Tensor>& key_mask,
                                             const AttentionOptions& options);
std::tuple<at::Tensor, at::Tensor> attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                             const std::optional<at::Tensor>& bias = {},
                                             const std::optional<at::Tensor>& key_mask = {}, bool causal = false,
                                             std::optional<double> scale = {});

/// Exact softmax rows of chosen queries, the numbers the fused op used: weights[b,h,r,j] for query queries[r].
/// Shapes   q, k, bias, key_mask as in attention(); queries int64 [R], each in [0, N); weights [B,H,R,M] f32 (f64 for
///          f64)
/// Meaning  a row sums to 1; it is 0 for a query without any key. Dropout, which acts on weights, is not in them. Not
///          differentiable.
/// Errors   as attention(); index error for a query outside [0, N).
/// Cost     O(B*H*R*M*C) time, O(B*H*R*M) memory.
at::Tensor attention_rows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& queries,
                          const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& key_mask,
                          const AttentionOptions& options);
at::Tensor attention_rows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& queries,
                          const std::optional<at::Tensor>& bias = {}, const std::optional<at::Tensor>& key_mask = {},
                          std::optional<double> scale = {}, bool causal = false);

}  // namespace fovea::ops
