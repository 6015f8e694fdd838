#pragma once
#include <ATen/core/Tensor.h>

#include "fovea/ops/attention.h"

namespace fovea::ops {

/// Attention of several sequences of any lengths that lie one behind the other, without padding: sequence s of the
/// queries attends to sequence s of the keys. Torch op `fovea::attention_packed`.
/// Shapes   q [N,H,C]; k [M,Hk,C], v [M,Hk,Cv], the tokens of all sequences; out [N,H,Cv], lse [N,H]
///          q_offsets, k_offsets: ascending from 0 to N and M, one more than there are sequences (cu_seqlens in flash
///          attention): sequence s holds tokens offsets[s] to offsets[s+1] - 1. A sequence may be empty.
/// Meaning  options as in attention(), for each sequence by itself; sequence s drops with key dropout_seed + s.
/// Gradient of q, k and v; lse is not differentiable.
/// Errors   caller error on offsets that do not ascend from 0 to the number of tokens, or differ in number; else those
///          of attention().
/// Cost     that of attention() on each sequence; one copy of out.
/// Source   as attention(), which is called once a sequence, in order
std::tuple<at::Tensor, at::Tensor> attention_packed(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                    at::IntArrayRef q_offsets, at::IntArrayRef k_offsets,
                                                    const AttentionOptions& options = {});

}  // namespace fovea::ops
