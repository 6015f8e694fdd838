#pragma once
#include <cstdint>
#include <string>

#include "fovea/core/dtype.h"
#include "fovea/kernels/peaks.h"
#include "fovea/kernels/window_attention.h"

namespace fovea::kernels {

/// Which keys a query of a 3-D token grid is compared with.
enum class AttentionReach {
  kGlobal,          ///< all of them
  kWindows,         ///< those of its window
  kShiftedWindows,  ///< those of its window after the grid moved by half a window, less what only the roll brought
                    ///< there
  kAxes,            ///< along one axis after the other, each longer than 1 a layer of its own
};

/// "global", "windows", "shifted", "axes".
std::string name_of(AttentionReach reach);

/// A self-attention layer on one volume.
struct AttentionLayer {
  Triple grid{1, 1, 1};  // tokens along Z, Y, X
  Triple window{1, 1,
                1};  // tokens; an axis no longer than the window is one window without shift, as in nn::WindowAttention
  int64_t width = 1;  // E, a multiple of heads
  int64_t heads = 1;
  DType dtype = DType::kF32;  // of q, k, v and of scores that are stored

  int64_t tokens() const { return grid[0] * grid[1] * grid[2]; }
  int64_t channels() const { return width / heads; }
};

/// What a layer's forward pass costs: arithmetic on shapes, nothing is run. A FLOP is a multiplication or an addition.
struct AttentionCost {
  int64_t tokens = 0;
  int64_t pairs = 0;            // dot products <q_i, k_j> a head that our kernels compute
  int64_t plain_pairs = 0;      // the same of the plain form: padded windows whole, masked or not
  double score_flops = 0;       // of all heads: q k^T and P v, 4 E a pair
  double projection_flops = 0;  // qkv and output layer, 8 E^2 a token (and axis)
  double exponentials = 0;      // of all heads, one a pair
  double plain_bytes = 0;       // scores of all heads that the plain form stores
  double lse_bytes = 0;         // what our kernels keep instead: one float a head and token
  double tensor_bytes = 0;      // qkv and output, which both forms hold

  /// Multiply-adds as in equations 1 and 2 of the Swin paper: 4 N E^2 + 2 pairs E.
  double multiply_adds() const { return (score_flops + projection_flops) / 2; }
};

/// Tokens along each axis when voxels are cut into patches, the last one padded.
inline Triple token_grid(const Triple& voxels, const Triple& patch) { return window_counts(voxels, patch); }

/// Errors   ArgumentError: a length, width or number of heads below 1, heads that do not divide the width, more than
///          2^31 tokens or 2^20 along an axis.
/// Cost     O(Z + Y + X)
/// Source   Liu et al. 2021 (Swin), arXiv:2103.14030, equations 1 and 2; regions from window_tokens().
AttentionCost attention_cost(AttentionReach reach, const AttentionLayer& layer);

/// Share of the port roofline: 16 float32 scores cost 2C multiply-adds and 10 other vector operations forward, 5C and
/// 13 backward, of which the machine starts as many as multiply-adds.
double forward_roofline(double peak_gflops, int64_t channels);   // 1e9 scores a second
double backward_roofline(double peak_gflops, int64_t channels);  // 1e9 scores a second

/// The machine that a plan is made for.
struct Machine {
  Peaks peaks;  // of one thread; all are taken to reach them together
  int threads = 1;
  double memory_bytes = 0;
};

/// This machine, its peaks measured now: some tens of milliseconds.
Machine this_machine(int threads);

/// Seconds of a forward pass at the machine's peaks: what no float32 implementation can beat there. Ours computes or
/// moves its tensors, whichever takes longer; the plain form besides writes its scores, reads and writes them for the
/// softmax and reads them again. NaN where the peaks are not known.
double fused_seconds(const AttentionCost& cost, const AttentionLayer& layer, const Machine& machine);
double plain_seconds(const AttentionCost& cost, const AttentionLayer& layer, const Machine& machine);

/// Why a plan cannot be carried out, or "": scores that cannot be stored on `machine`, and a fused pass that takes
/// longer than `longest_s` at best. Names tokens, dot products, bytes and time.
std::string why_refused(const AttentionCost& cost, const AttentionLayer& layer, const Machine& machine,
                        double longest_s);

/// "40 ms", "3.2 s", "1.5 h", "12 d".
std::string format_seconds(double seconds);

}  // namespace fovea::kernels
