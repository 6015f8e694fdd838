#pragma once
#include "fovea/core/parallel.h"
#include "fovea/kernels/attention.h"
#include "fovea/kernels/window_attention.h"

#if defined(__x86_64__)
namespace fovea::kernels::amx {

/// Who multiplies the tiles: the processor's AMX unit, or plain C++ that computes what the instructions are specified
/// to compute, bit for bit, on any machine with AVX-512.
enum class TileUnit { kHardware, kEmulated };

/// Whether this machine can run kernels on that unit: AVX-512 (F, BW, DQ, VL), and for kHardware AVX512-bf16 and
/// AMX-bf16 with the operating system's permission.
bool available(TileUnit unit);

/// bfloat16 attention on tiles. Both units give the same bits; so does any number of threads. The channel axis has
/// stride 1, other strides are any. Scores, softmax and all sums are float32; weights and their gradients are rounded
/// to bfloat16 where they enter a product, and the sums that outputs are divided by add up the rounded weights; lse and
/// the bias gradient come from what was not rounded. Backward reads out and lse as the forward pass left them.
/// Memory   beside the tensors: windows, the expanded bias of a head a thread; dense, K and V once more as tiles, and
///          backward dK and dV in float.
/// Errors   against the same call in double, a root mean square of 2.3e-3: a rounding of the weights and one of the
///          result, 1.7e-3 each. Plain PyTorch in bfloat16 (matmul, softmax, matmul) errs by two to three times that.
void window_attention_forward(const WindowAttentionParams<BFloat16>& p, const ParallelFor& parallel, TileUnit unit);
void window_attention_backward(const WindowAttentionBackwardParams<BFloat16>& g, const ParallelFor& parallel,
                               TileUnit unit);
/// Whether the dense kernels below have all that this call asks for: windows, soft cap, slopes and dropout they have not.
inline bool serves(const AttentionParams<BFloat16>& p) {
  return p.plain() && p.window_left < 0 && p.window_right < 0;
}
void attention_forward(const AttentionParams<BFloat16>& p, const ParallelFor& parallel, TileUnit unit);
void attention_backward(const AttentionBackwardParams<BFloat16>& g, const ParallelFor& parallel, TileUnit unit);

}  // namespace fovea::kernels::amx
#endif
