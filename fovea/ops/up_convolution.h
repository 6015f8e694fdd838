#pragma once
#include "fovea/ops/kernel_tensors.h"

namespace fovea::ops {

/// Transposed 3-D convolution whose kernel is its stride f: every voxel becomes a block of f^3, without overlap. What a
/// decoder joins to it is written beside it at once, instead of concatenating afterwards.
///   out[b,o,f z + i,f y + j,f x + k] = sum_c weight[c,o,i,j,k] x[b,c,z,y,x],   then the channels of skip
/// Shapes  x [B,Ci,Z,Y,X]; weight [Ci,Co,f,f,f]; skip [B,Cs,fZ,fY,fX]; out [B,Co+Cs,fZ,fY,fX], channels last in memory
/// Dtypes  float32, float64 (the definition); bfloat16 computes in float32
at::Tensor up_convolution(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& skip = {});

}  // namespace fovea::ops
