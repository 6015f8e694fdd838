#pragma once
#include <torch/torch.h>

#include "fovea/nn/patch_embed.h"

namespace fovea::nn {

/// Which two channels of an axis turn together: the same mathematics, weights in another order.
enum class RotaryPairing {
  kHalf,         ///< i and i + pairs, as in GPT-NeoX, Llama and flash-attention
  kInterleaved,  ///< 2i and 2i + 1, as in GPT-J and RoFormer
};

struct RotaryOptions {
  explicit RotaryOptions(int64_t channels) : channels_(channels) {}
  TORCH_ARG(int64_t, channels);  ///< C, of one head; 2 for each axis or more
  TORCH_ARG(int64_t, axes) = 3;  ///< D
  TORCH_ARG(RotaryPairing, pairing) = RotaryPairing::kHalf;
  TORCH_ARG(double, base) = 10000;  ///< the slowest pair turns by almost 1/base a unit
  TORCH_ARG(double, scale) = 1;     ///< multiplies coordinates: 64 for fields on [0, 1], as in OFormer
  /// Pair k turns k whole times from 0 to 1, for fields of period 1; base and scale are then not used.
  TORCH_ARG(bool, whole_turns) = false;
};

/// Rotary position in D axes: queries and keys are turned by angles in proportion to their coordinates, so that their dot
/// product depends on the displacement alone, whatever the window or grid.
///   pair k of an axis turns by scale * coordinate * base^(-k / pairs),  k < pairs = floor(C / 2D)
/// Channels lie as (Z: 2 pairs, Y: 2 pairs, X: 2 pairs, rest); the rest, C - 2D pairs channels, is left as it is.
/// Shapes   x [B,H,N,C], coordinates [N,D] (Z, Y, X), in any unit, need not be whole -> like x
/// Errors   caller error: C below 2D, shapes that do not fit
/// Cost     O(B*H*N*C)
/// Source   Su et al. 2021 (RoFormer), arXiv:2104.09864, eq. 34, one block of channels for each axis
class RotaryImpl : public torch::nn::Module {
 public:
  explicit RotaryImpl(const RotaryOptions& options);
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& coordinates) const;

 private:
  RotaryOptions options_;
};
TORCH_MODULE(Rotary);

/// Coordinates of the tokens of a grid, Z slowest: [Z*Y*X,3] f32.
torch::Tensor grid_coordinates(const Triple& grid);

}  // namespace fovea::nn
