#pragma once
#include "fovea/core/parallel.h"
#include "fovea/kernels/attention.h"
#include "fovea/kernels/window_attention.h"

#if defined(__x86_64__)
namespace fovea::kernels::amx {

/// Who multiplies the tiles: the processor's AMX unit, or plain C++ that computes what the instructions are specified
/// to compute, bit for bit, on any machine with AVX-512.
enum class TileUnit { kHardware, kEmulated };

/// Whether this machine can run kernels on that unit: AVX-512 (F, BW, DQ, VL), and for kHardware AMX-bf16 with the
/// operating system's permission.
bool available(TileUnit unit);

/// bfloat16 attention on tiles. Both units give the same bits; so does any number of threads. The channel axis has
/// stride 1, other strides are any. Scores, softmax and all sums are float32; weights and their gradients are rounded
/// to bfloat16 where they enter a product, and row sums add up the rounded weights.
void window_attention_forward(const WindowAttentionParams<BFloat16>& p, const ParallelFor& parallel, TileUnit unit);
void window_attention_backward(const WindowAttentionBackwardParams<BFloat16>& g, const ParallelFor& parallel,
                               TileUnit unit);
void attention_forward(const AttentionParams<BFloat16>& p, const ParallelFor& parallel, TileUnit unit);
void attention_backward(const AttentionBackwardParams<BFloat16>& g, const ParallelFor& parallel, TileUnit unit);

}  // namespace fovea::kernels::amx
#endif
