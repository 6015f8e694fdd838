#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

namespace fovea::ops {

/// The largest channel of each voxel and the mean of all, largest first. Torch op `fovea::channel_pool`.
///   out[b,0,v] = max_c x[b,c,v],  out[b,1,v] = 1/C sum_c x[b,c,v]
/// Shapes   x [B,C,Z,Y,X], C >= 1; out [B,2,Z,Y,X]
/// Gradient x; where several channels are alike the largest, each gets an equal share of its gradient (as torch's amax;
///          torch's max gives all of it to one of them). Not differentiable twice. Saved for backward: x and out.
/// Dtypes   f32; f64 (reference kernel); bf16 (computed in f32 on a converted copy)
/// Layout   x as channels last is read in place, another layout is copied; grad_x is channels last
/// Numerics same bits for any number of threads
/// Source   Woo et al. 2018 (CBAM), arXiv:1807.06521, section 3. Definition: kernels/reference/spatial_gate.cpp
at::Tensor channel_pool(const at::Tensor& x);

/// CBAM's spatial gate in evaluation, in one go. Torch op `fovea::spatial_gate`.
///   map = sigmoid(scale * conv(channel_pool(x), weight) + shift),  out = map * x
/// Shapes   x, out [B,C,Z,Y,X]; weight [1,2,kz,ky,kx], edges odd, zeros around the volume; map [B,1,Z,Y,X]
/// Gradient none: train with channel_pool()
/// Dtypes   all alike f32; f64 (reference kernel); bf16 (computed in f32 on a converted copy)
/// Layout   out is channels last in memory; x as channels last is read in place, another layout is copied
/// Numerics f32 accumulation, same bits for any number of threads
/// Cost     x read once from memory and once from the caches, 2 kz ky kx multiplications a voxel
/// Errors   caller error on rank, size, dtype, device or an even edge
/// Source   Woo et al. 2018, equation 3. Definition: kernels/reference/spatial_gate.cpp
std::tuple<at::Tensor, at::Tensor> spatial_gate(const at::Tensor& x, const at::Tensor& weight, double scale = 1,
                                                double shift = 0);

}  // namespace fovea::ops
