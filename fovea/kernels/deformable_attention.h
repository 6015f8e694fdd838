#pragma once
#include <cstdint>

#include "fovea/core/isa.h"
#include "fovea/core/parallel.h"
#include "fovea/core/view.h"

namespace fovea::kernels {

/// Multi-scale deformable attention: each query and head sums K interpolated values of each of Lv levels.
///   out[b,q,h] = sum_l sum_k weights[b,q,h,l,k] * x_l(locations[b,q,h,l,k])
/// x_l is level l of head h, linearly interpolated along each of D = 2 or 3 axes. A location of 0 is the outer face of
/// the first pixel, 1 that of the last (align_corners = false): pixel coordinate = location * size - 1/2. Outside the
/// level values are 0. A location that is NaN gives NaN, one that is far outside nothing.
/// Order    A location is a point, (x, y) or (x, y, z), as in grid_sample and Deformable DETR. spatial_shapes are sizes
///          in axis order, (Y, X) or (Z, Y, X), like every shape here: location[0] runs along the last axis.
/// Shapes   value [B,S,H,C], the levels one after the other, each in axis order; spatial_shapes [Lv,D], their products
///          sum to S; locations [B,Q,H,Lv,K,D]; weights [B,Q,H,Lv,K]; out [B,Q,H,C]
/// Strides  any; the channel axis of value and out of the float kernels has stride 1.
/// Gradient the derivative of the interpolant; at a pixel centre, where it has a corner, the one towards larger
///          coordinates.
/// Cost     O(B*Q*H*Lv*K*2^D*C) time; nothing is kept between the passes.
/// Source   Zhu et al. 2021, arXiv:2010.04159, eq. 3.
template <class T>
struct DeformableAttentionParams {
  View<const T, 4> value{};
  View<const int64_t, 2> spatial_shapes{};
  View<const T, 6> locations{};
  View<const T, 5> weights{};
  View<T, 4> out{};  // null in the backward pass
};

template <class T>
struct DeformableAttentionBackwardParams {
  DeformableAttentionParams<T> forward;
  View<const T, 4> grad_out{};
  View<T, 4> grad_value{};      // data null: not wanted. Each element sums queries, levels and points in this order.
  View<T, 6> grad_locations{};  // data null: not wanted, and grad_weights is null as well
  View<T, 5> grad_weights{};
};

namespace reference {
/// The definition: plain loops, double accumulation. T = float or double.
template <class T>
void deformable_attention_forward(const DeformableAttentionParams<T>& p, const ParallelFor& parallel = serial_for);
template <class T>
void deformable_attention_backward(const DeformableAttentionBackwardParams<T>& g,
                                   const ParallelFor& parallel = serial_for);
}  // namespace reference

namespace cpu {
/// SIMD (AVX2, AVX-512, NEON), same bits for any thread count: the gradient of value is summed in the order of the
/// queries by whoever owns its channels, never by two threads. `isa` picks one instruction set, which the machine must
/// have; kBaseline runs the definition.
void deformable_attention_forward(const DeformableAttentionParams<float>& p, const ParallelFor& parallel,
                                  Isa isa = chosen_isa());
void deformable_attention_backward(const DeformableAttentionBackwardParams<float>& g, const ParallelFor& parallel,
                                   Isa isa = chosen_isa());
}  // namespace cpu

}  // namespace fovea::kernels
