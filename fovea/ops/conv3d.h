#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>

namespace fovea::ops {

/// 3-D convolution of stride 1 that keeps the size: zeros around the volume, kernel edges odd. Torch op
/// `fovea::conv3d`.
///   out[b,o,v] = bias[o] + sum_{c,t} weight[o,c,t] x[b,c,v+t],  t the offsets -(k-1)/2..(k-1)/2 along each axis
/// Shapes   x [B,C,Z,Y,X]; weight [O,C,kz,ky,kx]; bias [O]; out [B,O,Z,Y,X]
/// Gradient x, weight, bias; not differentiable twice
/// Dtypes   all alike f32; f64 (reference kernel); bf16 (computed in f32, rounded once; on machines with AMX oneDNN's
/// bf16).
///          Under autocast: bf16 with AMX, else f32
/// Layout   out and grad_x are channels last in memory; x as channels last, or as channels of a wider such tensor, is
/// read
///          in place, another layout is copied
/// Numerics 3x3x3 in f32 takes the form that conv3d_form() names. Relative L2 error of F(4,4,4) and F(2,4,4) up to
/// 1e-5,
///          of the others 1e-6. torch.set_float32_matmul_precision("highest"), which is torch's default, keeps to the
///          others. NaN and infinity come out where the sum above has them. Same bits for any number of threads, but
///          for direct convolutions of more than 8 channels, which are oneDNN's
/// Errors   caller error on rank, size, dtype, device or an even kernel edge
/// Source   Lavin and Gray 2016, arXiv:1509.09308. Definition: kernels/reference/conv3d.cpp
at::Tensor conv3d(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias = {});

/// conv3d() and, taken while the output is written, what ops::instance_norm_act needs to know of it. Torch op
/// `fovea::conv3d_moments`.
///   moments [B,O,2] float64: mean and sum of squared deviations of each sample and channel of out, over its voxels
/// Dtypes   f32, f64. moments is not differentiable: the norm's gradient holds their part.
std::tuple<at::Tensor, at::Tensor> conv3d_moments(const at::Tensor& x, const at::Tensor& weight,
                                                  const std::optional<at::Tensor>& bias = {});

/// A layer's weights as its convolution reads them, kept for the next call. They take 8/3 to 8 times the memory of the
/// weights themselves.
class KeptConv3dWeights {
 public:
  KeptConv3dWeights();
  ~KeptConv3dWeights();

  /// conv3d() with the same bits. Where no gradient is recorded and `weight` requires none (a frozen network), the
  /// transformed weights of the last call are used, unless `weight` is another tensor or has been written to since.
  at::Tensor conv3d(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias = {});
  std::tuple<at::Tensor, at::Tensor> conv3d_moments(const at::Tensor& x, const at::Tensor& weight,
                                                    const std::optional<at::Tensor>& bias = {});

 private:
  struct Kept;
  std::unique_ptr<Kept> kept_;
};

/// "direct", "F(2,2,2)", "F(2,4,4)" or "F(4,4,4)": the form that the forward pass of this convolution takes, given the
/// present precision. FOVEA_CONV=direct in the environment allows no other.
std::string conv3d_form(const at::Tensor& x, const at::Tensor& weight);

}  // namespace fovea::ops
