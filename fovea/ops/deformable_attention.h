#pragma once
#include <ATen/core/Tensor.h>

namespace fovea::ops {

/// Multi-scale deformable attention in 2-D and 3-D: each query and head sums K interpolated values of each of Lv
/// levels. Torch op `fovea::deformable_attention`.
///   out[b,q,h] = sum_l sum_k weights[b,q,h,l,k] * x_l(locations[b,q,h,l,k])
/// Shapes   value [B,S,H,C], the levels one after the other; spatial_shapes int64 [Lv,D], D = 2 or 3, products sum to
///          S; locations [B,Q,H,Lv,K,D]; weights [B,Q,H,Lv,K]; out [B,Q,H*C]
/// Order    spatial_shapes are sizes in axis order, (Y, X) or (Z, Y, X). A location is a point, (x, y) or (x, y, z), as
///          in grid_sample and Deformable DETR: its first coordinate runs along the last axis.
/// Units    a location of 0 is the outer face of the first pixel, 1 that of the last: pixel = location * size - 1/2
///          (align_corners = false). Bilinear or trilinear, 0 outside. NaN gives NaN.
/// Gradient value, locations (the derivative of the interpolant), weights; not differentiable twice.
///          Saved for backward: the inputs.
/// Dtypes   value: f32; f64 (reference kernel); bf16 (computed in f32 on a converted copy, out rounded to bf16).
///          locations, weights: f32 for f32 and bf16, or bf16 for bf16; f64 for f64. Autocast casts value to its dtype
///          and leaves locations and weights; f64 stays f64.
/// Layout   any strides; out and gradients are contiguous.
/// Numerics f32 accumulation, coordinates in f64; same bits for any number of threads. Errors of R4.1 are tested.
/// Errors   caller error on rank, size, dtype or device, and on spatial_shapes that do not sum to S.
/// Cost     O(B*Q*H*Lv*K*2^D*C) time; memory beside the tensors O(Lv*K) a thread.
/// Source   Zhu et al. 2021, arXiv:2010.04159, eq. 3. Definition: kernels/reference/deformable_attention.cpp
at::Tensor deformable_attention(const at::Tensor& value, const at::Tensor& spatial_shapes, const at::Tensor& locations,
                                const at::Tensor& weights);

}  // namespace fovea::ops
