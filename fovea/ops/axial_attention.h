#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

namespace fovea::ops {

/// Attention along one axis of an alignment, straight from the qkv Linear's output. Torch op `fovea::axial_attention`.
/// i and j run over the n tokens of the attended axis, r over the m places of the other one:
///   untied   s[r,h,i,j] = scale * <q[r,i,h], k[r,j,h]> + pair_bias[h,i,j]          one map for each r
///   tied     s[h,i,j]   = scale * sum_r <q[r,i,h], k[r,j,h]> + pair_bias[h,i,j]    one map for all r
///   out[r,i,h] = sum_j softmax_j(s[..,i,:]) * v[r,j,h]
/// Shapes   qkv [B,R,L,3,H,C], R sequences of L residues; out [B,R,L,H*C]; mask bool [B,R,L], true = the token takes
///          part; pair_bias [n,n], [H,n,n] or [B,H,n,n], where B and H may be 1
/// Meaning  axis says what tokens attend along: "residues" (within a sequence; "row attention" of AlphaFold 2 and ESM)
///          or "sequences" (across species at one position; their "column attention"). scale defaults to C^-0.5, tied
///          (C*m)^-0.5, with m counting masked places too, as ESM does.
///          Masked tokens are never read as keys. Tied, they are left out of the sum over r on the query's side too,
///          and a key is closed where it is masked for every r. A query without any key gives 0 and no gradient.
/// Gradient qkv, pair_bias (in its own shape); not differentiable twice. Saved for backward: the inputs, out and lse.
/// Dtypes   qkv: f32; f64 (reference kernel); bf16 (computed in f32 on a converted copy, out rounded to bf16).
///          pair_bias: f32 for f32 and bf16, or bf16 for bf16; f64 for f64. Autocast casts qkv to its dtype and leaves
///          pair_bias, which is added to f32 scores; f64 stays f64.
/// Layout   qkv of any strides, never transposed in memory; out and gradients are contiguous.
/// Numerics f32 accumulation, no atomics, same bits for any number of threads. Errors of R4.1 are tested.
/// Errors   caller error on axis, rank, size, dtype or device: see check_axial_attention().
/// Cost     O(B*R*L*n*H*C) time; memory beside the tensors O(B*R*L*H) for lse (tied O(B*H*n)), O(n) a thread.
/// Source   Rao et al. 2021 (MSA Transformer), eq. 1; Jumper et al. 2021, supplement, algorithms 7 and 8.
///          Definition: kernels/reference/axial_attention.cpp
at::Tensor axial_attention(const at::Tensor& qkv, std::string_view axis,
                           const std::optional<at::Tensor>& pair_bias = {}, bool tied = false,
                           const std::optional<at::Tensor>& mask = {}, std::optional<double> scale = {});

}  // namespace fovea::ops
