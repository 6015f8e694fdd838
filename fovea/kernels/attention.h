#pragma once
#include <cstdint>
#include <type_traits>

#include "fovea/core/dtype.h"
#include "fovea/core/isa.h"
#include "fovea/core/parallel.h"
#include "fovea/core/view.h"

namespace fovea::kernels {

/// What scores, bias and lse of tensors of type T are kept in: float for bfloat16, else T.
template <class T>
using ScoreOf = std::conditional_t<std::is_same_v<T, BFloat16>, float, T>;

/// Dense attention of one call. Letters as in docs/notation.md.
///   s[b,h,i,j] = scale * <q[b,h,i], k[b,hk,j]> + bias[b,h,i,j],   hk = h / (H / Hk)
///   out[b,h,i] = sum_j softmax_j(s[b,h,i,:]) * v[b,hk,j],          lse[b,h,i] = log sum_j exp(s[b,h,i,j])
/// Keys with key_mask false and, if causal, keys j > i + (M - N) take no part: they are never read into a sum, so NaN
/// behind a mask stays there. A query without any key gives out = 0, lse = -inf and no gradient.
/// Shapes   q, out [B,H,N,C|Cv]; k [B,Hk,M,C]; v [B,Hk,M,Cv]; bias [B,H,N,M] with stride 0 on broadcast axes; key_mask
/// [B,M];
///          lse [B,H,N]. Any strides for inputs; the channel axis of the float kernels has stride 1.
/// T        double (reference), float (reference and cpu) or BFloat16 (cpu).
/// Source   Vaswani et al. 2017, eq. 1; lse and backward as in Dao et al. 2022 (FlashAttention), algorithm 2.
template <class T>
struct AttentionParams {
  View<const T, 4> q, k, v;
  View<const ScoreOf<T>, 4> bias{};   // data null: none
  View<const uint8_t, 2> key_mask{};  // data null: all take part
  bool causal = false;
  double scale = 1;
  View<T, 4> out{};
  View<ScoreOf<T>, 3> lse{};
};

template <class T>
struct AttentionBackwardParams {
  AttentionParams<T> forward;  // out and lse as the forward pass left them
  View<const T, 4> grad_out{};
  View<T, 4> grad_q{}, grad_k{}, grad_v{};  // written
  View<ScoreOf<T>, 4> grad_bias{};  // data null: not wanted. Broadcast axes have stride 0: summed over, in fixed order. Written.
};

/// Exact softmax rows of chosen queries: weights[b,h,r,j] = exp(s[b,h,queries[r],j] - lse). O(R*M) memory.
template <class T>
struct AttentionRowsParams {
  AttentionParams<T> forward;  // v, out, lse unused
  View<const int64_t, 1> queries{};
  View<T, 4> weights{};  // [B,H,R,M]
};

namespace reference {
/// The definition: plain loops, double accumulation. T = float, double or BFloat16 (not for rows).
template <class T>
void attention_forward(const AttentionParams<T>& p, const ParallelFor& parallel = serial_for);
template <class T>
void attention_backward(const AttentionBackwardParams<T>& p, const ParallelFor& parallel = serial_for);
template <class T>
void attention_rows(const AttentionRowsParams<T>& p, const ParallelFor& parallel = serial_for);
}  // namespace reference

namespace cpu {
/// SIMD (AVX2, AVX-512, NEON), float accumulation, same bits for any thread count. Memory O(B*H*N) beside the tensors.
/// Backward reads out and lse as the forward pass left them. `isa` picks one instruction set, which the machine must
/// have; kBaseline runs the definition.
template <class T>
void attention_forward(const AttentionParams<T>& p, const ParallelFor& parallel, Isa isa = chosen_isa());
template <class T>
void attention_backward(const AttentionBackwardParams<T>& p, const ParallelFor& parallel, Isa isa = chosen_isa());
void attention_rows(const AttentionRowsParams<float>& p, const ParallelFor& parallel);
}  // namespace cpu

}  // namespace fovea::kernels
