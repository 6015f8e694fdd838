#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace fovea::ops {

/// Dense multi-head attention, self or cross; never builds the N×M scores. Torch op `fovea::attention`.
///   s[b,h,i,j] = scale * <q[b,h,i], k[b,hk,j]> + bias[b,h,i,j],   hk = h / (H / Hk)
///   out[b,h,i] = sum_j softmax_j(s[b,h,i,:]) * v[b,hk,j],         lse[b,h,i] = log sum_j exp(s[b,h,i,j])
/// Shapes   q [B,H,N,C]; k [B,Hk,M,C], v [B,Hk,M,Cv], H a multiple of Hk; out [B,H,N,Cv], lse [B,H,N]
///          bias broadcastable to [B,H,N,M]; key_mask bool [B,M], true = the key takes part (as in torch's SDPA)
/// Meaning  causal lets query i see keys j <= i + (M - N): aligned at the bottom right. scale defaults to C^-0.5.
///          Masked keys are never read into a sum. A query without any key gives out = 0, lse = -inf and no gradient.
/// Gradient q, k, v and bias (reduced to the shape it was given in); lse is not differentiable, nor is the gradient.
///          Saved for backward: the inputs, out and lse.
/// Dtypes   q, k, v alike: f32; f64 (reference kernel); bf16 (widened on load and computed in f32, out rounded to
/// bf16).
///          bias: f32 for f32 and bf16, or bf16 for bf16; f64 for f64. lse: f64 for f64, else f32.
///          Autocast casts q, k, v to its dtype and leaves bias, which is added to f32 scores; f64 stays f64.
/// Layout   any strides. out and the gradients lie tokens before heads, [B,N,H,C] in memory, if q (k, v) does.
/// Numerics f32 accumulation, same bits for any number of threads. Errors of R4.1 are tested.
/// Errors   caller error on rank, size, dtype or device: see check_attention().
/// Cost     O(B*H*N*M*C) time; memory beside the tensors O(B*H*N).
/// Source   Vaswani et al. 2017, eq. 1. Definition: kernels/reference/attention.cpp
std::tuple<at::Tensor, at::Tensor> attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                             const std::optional<at::Tensor>& bias = {},
                                             const std::optional<at::Tensor>& key_mask = {}, bool causal = false,
                                             std::optional<double> scale = {});

/// Exact softmax rows of chosen queries, the numbers the fused op used: weights[b,h,r,j] for query queries[r].
/// Shapes   q, k, bias, key_mask as in attention(); queries int64 [R], each in [0, N); weights [B,H,R,M] f32 (f64 for
/// f64) Meaning  a row sums to 1; it is 0 for a query without any key. Not differentiable. Errors   as attention();
/// index error for a query outside [0, N). Cost     O(B*H*R*M*C) time, O(B*H*R*M) memory.
at::Tensor attention_rows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& queries,
                          const std::optional<at::Tensor>& bias = {}, const std::optional<at::Tensor>& key_mask = {},
                          std::optional<double> scale = {}, bool causal = false);

}  // namespace fovea::ops
