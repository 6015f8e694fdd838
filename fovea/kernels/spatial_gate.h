#pragma once
#include <cstdint>

#include "fovea/core/isa.h"
#include "fovea/core/parallel.h"
#include "fovea/core/view.h"

namespace fovea::kernels {

/// The largest channel of each voxel and the mean of all of them.
///   out[b,0,v] = max_c x[b,v,c],  out[b,1,v] = 1/C sum_c x[b,v,c]
/// Shapes   x [B,V,C] contiguous (channels last); out [B,2,V] contiguous
template <class T>
struct ChannelPoolParams {
  View<const T, 3> x;
  View<T, 3> out;
};

/// grad_x[b,v,c] = grad_out[b,1,v] / C + (x[b,v,c] = out[b,0,v] ? grad_out[b,0,v] / n : 0)
/// n channels that are alike the largest share its gradient equally: the only rule that does not depend on their order.
template <class T>
struct ChannelPoolBackwardParams {
  ChannelPoolParams<T> forward;  // out as the forward pass left it
  View<const T, 3> grad_out;     // [B,2,V]
  View<T, 3> grad_x;             // [B,V,C], written
};

/// A map of importance over the voxels, from two numbers a voxel, and the features times it.
///   map[b,v] = sigmoid(scale * sum_{i,t} weight[i,t] pool[b,i,v+t] + shift),  pool as in ChannelPoolParams, t the
///   offsets -(k-1)/2..(k-1)/2 along each axis, zeros around the volume;  out[b,v,c] = map[b,v] x[b,v,c]
/// Shapes   x, out [B,Z,Y,X,C] contiguous (channels last); weight [2,kz,ky,kx] contiguous, edges odd; map [B,Z,Y,X]
/// Numerics same bits for any thread count
/// Source   Woo et al. 2018 (CBAM), arXiv:1807.06521, equation 3; scale and shift are its batch norm in evaluation
template <class T>
struct SpatialGateParams {
  View<const T, 5> x;
  View<const T, 4> weight;
  double scale = 1, shift = 0;
  View<T, 5> out;
  View<T, 4> map;
};

namespace reference {
/// The definition: plain loops, double accumulation. T = float or double.
template <class T>
void channel_pool_forward(const ChannelPoolParams<T>& p, const ParallelFor& parallel = serial_for);
template <class T>
void channel_pool_backward(const ChannelPoolBackwardParams<T>& p, const ParallelFor& parallel = serial_for);
template <class T>
void spatial_gate_forward(const SpatialGateParams<T>& p, const ParallelFor& parallel = serial_for);
}  // namespace reference

namespace cpu {
/// SIMD. One pass over x each; the gate reads a plane again while the caches hold it.
void channel_pool_forward(const ChannelPoolParams<float>& p, const ParallelFor& parallel, Isa isa = chosen_isa());
void channel_pool_backward(const ChannelPoolBackwardParams<float>& p, const ParallelFor& parallel,
                           Isa isa = chosen_isa());
void spatial_gate_forward(const SpatialGateParams<float>& p, const ParallelFor& parallel, Isa isa = chosen_isa());
}  // namespace cpu

}  // namespace fovea::kernels
