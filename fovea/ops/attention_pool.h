#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace fovea::ops {

/// Softmax pooling of bags of rows of any size, as in attention-based multiple-instance learning: one pass over the
/// values, no copy of the weights. Torch op `fovea::attention_pool`.
///   out[b,h] = sum_{n in bag b} softmax_n(scores[:,h]) * values[n],   lse[b,h] = log sum_{n in bag b} exp(scores[n,h])
/// Shapes   scores [N,H]; values [N,E]; offsets int64 [bags+1]; out [bags,H,E]; lse [bags,H]
/// Meaning  bag b holds rows offsets[b] <= n < offsets[b+1]; offsets ascend from 0 to N. Absent: one bag of all rows.
///          Every head pools all E channels: CLAM's branches are H heads, gated attention with one score is H = 1.
///          A row of score -inf takes no part in that head: its values are never read into the sum. A bag without rows
///          that take part gives out = 0, lse = -inf and no gradient. The weight of a row is exp(scores - lse).
/// Gradient scores, values; lse is not differentiable, nor is the gradient. Saved: the inputs, out and lse.
/// Dtypes   values: f32; f64 (reference kernel); bf16 (computed in f32 on a converted copy, out rounded to bf16).
///          scores: f32 for f32 and bf16, or bf16 for bf16; f64 for f64. lse: f64 for f64, else f32.
///          Autocast casts values to its dtype and leaves scores, whose softmax is computed in f32; f64 stays f64.
/// Layout   any strides; out, lse and gradients are contiguous.
/// Numerics f32 accumulation, same bits for any number of threads. Errors of R4.1 are tested.
/// Errors   caller error on rank, size, dtype or device; index error on offsets that do not ascend from 0 to N.
/// Cost     O(N*H*E) time; memory beside the tensors O(N/1024*H*E).
/// Source   Ilse et al. 2018, arXiv:1802.04712, eq. 7. Definition: kernels/reference/attention_pool.cpp
std::tuple<at::Tensor, at::Tensor> attention_pool(const at::Tensor& scores, const at::Tensor& values,
                                                  const std::optional<at::Tensor>& offsets = {});

}  // namespace fovea::ops
