#pragma once
#include <cstdint>

#include "fovea/core/isa.h"
#include "fovea/core/parallel.h"
#include "fovea/core/view.h"

namespace fovea::kernels {

/// Softmax pooling of bags of rows, as in attention-based multiple-instance learning.
///   out[b,h] = sum_{n in bag b} softmax_n(scores[:,h]) * values[n],   lse[b,h] = log sum_{n in bag b} exp(scores[n,h])
/// Bag b holds the rows offsets[b] <= n < offsets[b+1]. Every head pools all E channels. A row whose score is -inf
/// takes no part in that head: its values are never read into the sum. A bag without rows that take part gives out = 0,
/// lse = -inf and no gradient.
/// Shapes   scores [N,H]; values [N,E]; offsets [bags+1], ascending, within [0, N]; out [bags,H,E]; lse [bags,H]
/// Strides  any; the channel axis of values and out of the float kernels has stride 1.
/// Cost     O(N*H*E) time, one pass over values each way; memory beside the tensors: see cpu::attention_pool_forward.
/// Source   Ilse et al. 2018, arXiv:1802.04712, eq. 7; streamed as in Milakov & Gimelshein 2018, arXiv:1805.02867.
template <class T>
struct AttentionPoolParams {
  View<const T, 2> scores{}, values{};
  View<const int64_t, 1> offsets{};
  View<T, 3> out{};
  View<T, 2> lse{};
};

template <class T>
struct AttentionPoolBackwardParams {
  AttentionPoolParams<T> forward;  // out and lse as the forward pass left them
  View<const T, 3> grad_out{};
  View<T, 2> grad_scores{}, grad_values{};  // data null: not wanted. Rows of bags are written, others are left alone.
};

namespace reference {
/// The definition: plain loops, double accumulation. T = float or double.
template <class T>
void attention_pool_forward(const AttentionPoolParams<T>& p, const ParallelFor& parallel = serial_for);
template <class T>
void attention_pool_backward(const AttentionPoolBackwardParams<T>& p, const ParallelFor& parallel = serial_for);
}  // namespace reference

namespace cpu {
/// SIMD (AVX2, AVX-512, NEON), same bits for any thread count. A bag longer than 1024 rows is cut into parts of that
/// many, each with its own maximum, joined in order: O(N/1024 * H * E) memory. Backward reads out and lse as the
/// forward pass left them. `isa` picks one instruction set, which the machine must have; kBaseline runs the definition.
void attention_pool_forward(const AttentionPoolParams<float>& p, const ParallelFor& parallel, Isa isa = chosen_isa());
void attention_pool_backward(const AttentionPoolBackwardParams<float>& p, const ParallelFor& parallel,
                             Isa isa = chosen_isa());
}  // namespace cpu

}  // namespace fovea::kernels
