#pragma once
#include <cstdint>

#include "fovea/core/isa.h"
#include "fovea/core/parallel.h"
#include "fovea/core/view.h"
#include "fovea/kernels/attention.h"

namespace fovea::kernels {

/// The axis of an alignment that tokens attend along: "row attention" of AlphaFold 2 and ESM is kResidues.
enum class AlignmentAxis { kSequences, kResidues };

/// Attention along one axis of an alignment of R sequences by L residues, straight from the qkv Linear's output. Below,
/// i and j run over the n tokens of the attended axis and r over the m places of the other one.
///   untied   s[r,h,i,j] = scale * <q[r,i,h], k[r,j,h]> + pair_bias[h,i,j]      one map for each r
///   tied     s[h,i,j]   = scale * sum_r <q[r,i,h], k[r,j,h]> + pair_bias[h,i,j]   one map for all r
///   out[r,i,h] = sum_j softmax_j(s[..,i,:]) * v[r,j,h]
/// Tokens with mask false are never read as keys. Tied, a masked token is left out of the sum over r, on the query's
/// side as well, and adds nothing to out; key j is closed where it is masked for every r. A query without any key gives
/// out = 0, lse = -inf and no gradient.
/// Shapes   qkv [B,R,L,3,H,C]; pair_bias [B,H,n,n], strides of B and H may be 0; mask [B,R,L]; out [B,R,L,H,C];
///          lse [B,m,H,n], tied [B,1,H,n]
/// Strides  any; the channel axis of the float kernels has stride 1.
/// Cost     O(B*R*L*n*H*C) time. Nothing is transposed in memory.
/// Source   Rao et al. 2021 (MSA Transformer), eq. 1; Jumper et al. 2021 (AlphaFold 2), supplement, algorithms 7 and 8.
template <class T>
struct AxialAttentionParams {
  View<const T, 6> qkv{};
  AlignmentAxis axis = AlignmentAxis::kResidues;
  bool tied = false;
  double scale = 1;
  View<const ScoreOf<T>, 4> pair_bias{};  // data null: none
  View<const uint8_t, 3> mask{};          // data null: all take part
  View<T, 5> out{};
  View<ScoreOf<T>, 4> lse{};

  int64_t attended() const { return qkv.shape[axis == AlignmentAxis::kResidues ? 2 : 1]; }
  int64_t others() const { return qkv.shape[axis == AlignmentAxis::kResidues ? 1 : 2]; }
};

template <class T>
struct AxialAttentionBackwardParams {
  AxialAttentionParams<T> forward;  // out and lse as the forward pass left them
  View<const T, 5> grad_out{};
  View<T, 6> grad_qkv{};                 // written
  View<ScoreOf<T>, 4> grad_pair_bias{};  // data null: not wanted. Axes of stride 0 are summed over, in fixed order.
};

namespace reference {
/// The definition: plain loops, double accumulation. T = float or double.
template <class T>
void axial_attention_forward(const AxialAttentionParams<T>& p, const ParallelFor& parallel = serial_for);
template <class T>
void axial_attention_backward(const AxialAttentionBackwardParams<T>& g, const ParallelFor& parallel = serial_for);
}  // namespace reference

namespace cpu {
/// SIMD (AVX2, AVX-512, NEON), same bits for any thread count, no atomics. Untied attention is cpu::attention_forward
/// on strided views, tied has kernels of its own that hold 192 columns of the map: O((192 + C) * n) memory a thread
/// beside the tensors. `isa` picks one instruction set, which the machine must have; kBaseline runs the definition.
void axial_attention_forward(const AxialAttentionParams<float>& p, const ParallelFor& parallel, Isa isa = chosen_isa());
void axial_attention_backward(const AxialAttentionBackwardParams<float>& g, const ParallelFor& parallel,
                              Isa isa = chosen_isa());
}  // namespace cpu

}  // namespace fovea::kernels
