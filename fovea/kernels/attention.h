#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "fovea/core/dtype.h"
#include "fovea/core/isa.h"
#include "fovea/core/parallel.h"
#include "fovea/core/rng.h"
#include "fovea/core/view.h"

namespace fovea::kernels {

/// What scores, bias and lse of tensors of type T are kept in: float for bfloat16, else T.
template <class T>
using ScoreOf = std::conditional_t<std::is_same_v<T, BFloat16>, float, T>;

/// Which weights dropout keeps. The counter is the place of the weight, the key is the seed: nothing is stored, and
/// backward draws what forward drew.
struct AttentionDropout {
  double probability = 0;  // in [0, 1)
  uint64_t seed = 0;

  /// A weight is kept if its 32 random bits are at least this.
  uint32_t threshold() const { return static_cast<uint32_t>(probability * 0x1p32); }
  /// What the weight of query i and key j is multiplied with: 0 or 1 / (1 - probability).
  double factor(int64_t b, int64_t h, int64_t i, int64_t j) const {
    const auto u32 = [](int64_t n) { return static_cast<uint32_t>(n); };
    const auto bits = philox4x32({u32(j), u32(i / 4), u32(h), u32(b)},
                                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    return bits[i % 4] >= threshold() ? 1 / (1 - probability) : 0;
  }
};

/// Dense attention of one call. Letters as in docs/notation.md.
///   t[b,h,i,j] = scale * <q[b,h,i], k[b,hk,j]>,   hk = h / (H / Hk);   with a soft cap c: c tanh(t / c) in its place
///   s[b,h,i,j] = t[b,h,i,j] + bias[b,h,i,j] - slope[h] |i + (M - N) - j|
///   out[b,h,i] = sum_j softmax_j(s[b,h,i,:]) * drop[b,h,i,j] * v[b,hk,j],   lse[b,h,i] = log sum_j exp(s[b,h,i,j])
/// Query i stands at key i + (M - N): the last query at the last key. Keys with key_mask false, keys more than
/// window_left before or window_right behind the query's place, and if causal all behind it, take no part: they are
/// never read into a sum, so NaN behind a mask stays there. A query without any key gives out = 0, lse = -inf and no
/// gradient.
/// Shapes   q, out [B,H,N,C|Cv]; k [B,Hk,M,C]; v [B,Hk,M,Cv]; bias [B,H,N,M] with stride 0 on broadcast axes; key_mask
/// [B,M];
///          lse [B,H,N]. Any strides for inputs; the channel axis of the float kernels has stride 1.
/// T        double (reference), float (reference and cpu) or BFloat16 (cpu).
/// Source   Vaswani et al. 2017, eq. 1; lse and backward as in Dao et al. 2022 (FlashAttention), algorithm 2. Soft cap:
///          Gemma Team 2024 (Gemma 2), section 2. Slopes: Press et al. 2022 (ALiBi), section 3.
template <class T>
struct AttentionParams {
  View<const T, 4> q, k, v;
  View<const ScoreOf<T>, 4> bias{};   // data null: none
  View<const uint8_t, 2> key_mask{};  // data null: all take part
  bool causal = false;
  double scale = 1;
  View<T, 4> out{};
  View<ScoreOf<T>, 3> lse{};
  int64_t window_left = -1, window_right = -1;  // negative: no limit
  double softcap = 0;                           // 0: none
  View<const double, 1> alibi_slopes{};         // [H]; data null: none
  AttentionDropout dropout{};

  /// Query i sees keys [first_key(i), end_key(i)) as far as key_mask allows; both grow with i.
  int64_t first_key(int64_t i) const {
    const int64_t n = q.shape[2], m = k.shape[2];
    return window_left < 0 ? 0 : std::clamp<int64_t>(i + (m - n) - std::min(window_left, n + m), 0, m);
  }
  int64_t end_key(int64_t i) const {
    const int64_t n = q.shape[2], m = k.shape[2], right = causal ? 0 : window_right;
    return right < 0 ? m : std::clamp<int64_t>(i + (m - n) + std::min(right, n + m) + 1, 0, m);
  }
  bool sees_all_keys() const { return !causal && window_left < 0 && window_right < 0; }
  /// Whether scores are scale <q, k> + bias and weights go to v as they are.
  bool plain() const { return softcap == 0 && !alibi_slopes.data && dropout.probability == 0; }
};

template <class T>
struct AttentionBackwardParams {
  AttentionParams<T> forward;  // out and lse as the forward pass left them
  View<const T, 4> grad_out{};
  View<T, 4> grad_q{}, grad_k{}, grad_v{};  // written
  View<ScoreOf<T>, 4> grad_bias{};  // data null: not wanted. Broadcast axes have stride 0: summed over, in fixed order. Written.
};

/// Exact softmax rows of chosen queries, before dropout: weights[b,h,r,j] = exp(s[b,h,queries[r],j] - lse). O(R*M)
/// memory.
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
