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
  View<const T, 1> bias{};  // data null: none
  View<T, 5> out{};
  View<double, 3> moments{};  // data null: not wanted; else written: mean and sum of squared deviations of each
                              // sample and channel of out, over its voxels
};

/// grad_x[b,v,c] = sum_{o,t} weight[o,t,c] grad_out[b,v-t,o],  t the offsets -1..1;  grad_bias[o] = sum_{b,v}
/// grad_out[b,v,o] grad_weight[o,t,c] = sum_{b,v} grad_out[b,v,o] x[b,v+t,c]
template <class T>
struct Conv3dBackwardParams {
  Conv3dParams<T> forward;             // x is read for grad_weight, weight for grad_x, the rest not at all
  View<const T, 5> grad_out;           // as out
  View<T, 5> grad_x{}, grad_weight{};  // data null: not wanted; as x and weight
  View<T, 1> grad_bias{};
};

/// How a convolution is computed: directly, or in Winograd tiles of Z x Y x X outputs.
/// Relative L2 error against double, unit-normal data, 48 to 384 channels: F222 3e-7 to 8e-7, F244 1e-6 to 3e-6, F444
/// 2e-6 to 5e-6; direct 1e-6.
enum class Conv3dForm { kDirect, kF222, kF244, kF444 };

std::string name_of(Conv3dForm form);  // "direct", "F(2,2,2)" ...

struct Conv3dSize {
  int64_t B, Z, Y, X, in, out;  // samples, voxels, channels
};

/// kHighest allows an error like that of the direct sum: F222. kHigh allows 1e-5.
enum class Conv3dPrecision { kHighest, kHigh };

/// The form that takes least time by a count of operations and bytes. kDirect where Winograd does not pay: few
/// channels, few voxels.
Conv3dForm choose_conv3d_form(const Conv3dSize& size, Conv3dPrecision precision);

namespace reference {
/// The definition: plain loops, double accumulation. T = float or double.
template <class T>
void conv3d_forward(const Conv3dParams<T>& p, const ParallelFor& parallel = serial_for);
template <class T>
void conv3d_backward(const Conv3dBackwardParams<T>& g, const ParallelFor& parallel = serial_for);
}  // namespace reference

namespace cpu {
/// Weights as the products of one form on one instruction set read them; larger than the weights themselves by 8/3
/// (F222), 16/3 (F244) or 8 (F444).
struct Conv3dWeights {
  Conv3dForm form = Conv3dForm::kDirect;
  Isa isa = Isa::kBaseline;
  int64_t in = 0, out = 0;
  std::shared_ptr<float> values{};
};
Conv3dWeights transform_conv3d_weights(const View<const float, 5>& weight, Conv3dForm form, const ParallelFor& parallel,
                                       Isa isa = chosen_isa());

/// SIMD. Same bits for any thread count. A Winograd tile whose result is not finite is computed again directly, so that
/// NaN and infinity come out exactly where the definition has them. kept     weights of the same form and isa, or null:
/// transformed in this call Memory   a few MB a thread, and the transformed weights
void conv3d_forward(const Conv3dParams<float>& p, Conv3dForm form, const ParallelFor& parallel, Isa isa = chosen_isa(),
                    const Conv3dWeights* kept = nullptr);

/// grad_weight is summed in a fixed number of partial sums. If x or grad_out hold NaN or infinity, grad_weight is not
/// finite wherever the definition's is not, and may be so in further taps of the same channels. Form kDirect:
/// grad_weight by the reference.
void conv3d_backward(const Conv3dBackwardParams<float>& g, Conv3dForm form, const ParallelFor& parallel,
                     Isa isa = chosen_isa());
}  // namespace cpu

}  // namespace fovea::kernels
