#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "fovea/core/isa.h"
#include "fovea/core/parallel.h"
#include "fovea/core/view.h"

namespace fovea::kernels {

/// 3x3x3 convolution (a correlation, as every framework has it), stride 1, zeros around the volume.
///   out[b,z,y,x,o] = bias[o] + sum_{i,j,k in 0..2} sum_c weight[o,i,j,k,c] x[b,z+i-1,y+j-1,x+k-1,c]
/// Shapes   x [B,Z,Y,X,Ci], out [B,Z,Y,X,Co]: channels adjacent, else any strides, e.g. channels of a wider tensor;
///          weight [Co,3,3,3,Ci] of any strides; bias [Co]; moments [B,Co,2]
/// Source   Winograd forms: Lavin and Gray 2016, arXiv:1509.09308, in three dimensions
template <class T>
struct Conv3dParams {
  View<const T, 5> x;
  View<const T, 5> weight;
  View<const T, 1> bias{};       // data null: none
  View<T, 5> out{};
  View<double, 3> moments{};     // data null: not wanted; else written: mean and sum of squared deviations of each
                                 // sample and channel of out, over its voxels
};

/// grad_x[b,v,c] = sum_{o,t} weight[o,t,c] grad_out[b,v-t,o],  t the offsets -1..1;  grad_bias[o] = sum_{b,v} grad_out[b,v,o]
/// grad_weight[o,t,c] = sum_{b,v} grad_out[b,v,o] x[b,v+t,c]
template <class T>
struct Conv3dBackwardParams {
  Conv3dParams<T> forward;       // x is read for grad_weight, weight for grad_x, the rest not at all
  View<const T, 5> grad_out;     // as out
  View<T, 5> grad_x{}, grad_weight{};  // data null: not wanted; as x and weight
  View<T, 1> grad_bias{};
};

namespace reference {
/// The definition: plain loops, double accumulation. T = float or double.
template <class T> void conv3d_forward(const Conv3dParams<T>& p, const ParallelFor& parallel = serial_for);
template <class T> void conv3d_backward(const Conv3dBackwardParams<T>& g, const ParallelFor& parallel = serial_for);
}  // namespace reference

}  // namespace fovea::kernels
