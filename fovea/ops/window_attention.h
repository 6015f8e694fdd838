#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace fovea::ops {

/// Windowed multi-head attention over a 3-D token grid, straight from the qkv Linear's output: partition, roll, mask,
/// bias, softmax and reverse are index arithmetic, nothing is rolled or partitioned in memory. Torch op
/// `fovea::window_attention`.
///   s[i,j] = scale * <q_i, k_j> + bias[h, rel(i,j)] (+ mask_value if the regions of i and j differ and it is given)
///   out_i  = sum_j softmax_j(s[i,:]) v_j            over the tokens j of i's window
/// Shapes   qkv [B,Z,Y,X,3,H,C]; out [B,Z,Y,X,H*C]; lse [B,H,Z,Y,X]; n = wz*wy*wx tokens a window
///          bias_table [(2wz-1)(2wy-1)(2wx-1), H] by displacement, or bias [H,n,n] (query, key); at most one of them
///          window, shift: tokens along Z, Y, X; 1 <= window, 0 <= shift < window
///          pad_token [3,H,C]: what a position of the padded grid holds, i.e. the bias of the qkv Linear
/// Units    tokens. Z, Y, X need not be multiples of window: the grid is padded at its far ends.
/// Meaning  pad_token absent: padded positions take no part. Given: they take part as keys (MONAI, Video Swin).
///          mask_value absent: regions that the roll brought together never see each other. -100: additive, as MONAI.
///          scale defaults to C^-0.5. An axis no longer than its window wants window = axis and shift = 0: the caller's
///          choice.
/// Gradient qkv, bias_table, bias, pad_token (0 in its q part); lse is not differentiable, nor is the gradient.
///          Saved for backward: the inputs, out and lse.
/// Dtypes   qkv: f32; f64 (reference kernel); bf16 (widened on load and computed in f32, out rounded to bf16).
///          pad_token as qkv. bias_table and bias: f32 for f32 and bf16, or bf16 for bf16; f64 for f64. lse: f64 for
///          f64, else f32. Autocast casts qkv and pad_token to its dtype and leaves bias_table and bias, which are
///          added to f32 scores; f64 stays f64.
/// Layout   qkv of any strides; out, lse and gradients are contiguous.
/// Numerics f32 accumulation, same bits for any number of threads. Errors of R4.1 are tested.
/// Errors   caller error on rank, size, dtype or device: see check_window_attention().
/// Cost     O(B*Z*Y*X*n*H*C) time; memory beside the tensors: the expanded bias O(H*n*n), and O(n*C) a thread.
/// Source   Liu et al. 2021 (Swin), arXiv:2103.14030, eq. 4. Definition: kernels/reference/window_attention.cpp
std::tuple<at::Tensor, at::Tensor> window_attention(const at::Tensor& qkv, const std::optional<at::Tensor>& bias_table,
                                                    at::IntArrayRef window, at::IntArrayRef shift,
                                                    std::optional<double> scale = {},
                                                    const std::optional<at::Tensor>& pad_token = {},
                                                    std::optional<double> mask_value = {},
                                                    const std::optional<at::Tensor>& bias = {});

/// Exact softmax rows of chosen queries, the numbers the fused op used, and where their keys lie.
/// Shapes   queries int64 [R], flat token indices (z*Y + y)*X + x
///          weights [B,H,R,n] f32 (f64 for f64), 0 for keys that take no part
///          keys int64 [R,n]: flat token index of each key, -1 for a padded position
/// Meaning  the other arguments as in window_attention(). Not differentiable.
/// Errors   as window_attention(); index error for a query outside the grid.
/// Cost     O(B*H*R*n*C) time, O(B*H*R*n) memory.
std::tuple<at::Tensor, at::Tensor> window_attention_rows(
    const at::Tensor& qkv, const std::optional<at::Tensor>& bias_table, at::IntArrayRef window, at::IntArrayRef shift,
    const at::Tensor& queries, std::optional<double> scale = {}, const std::optional<at::Tensor>& pad_token = {},
    std::optional<double> mask_value = {}, const std::optional<at::Tensor>& bias = {});

}  // namespace fovea::ops
