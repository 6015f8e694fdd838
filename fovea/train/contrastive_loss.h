#pragma once
#include <torch/torch.h>

namespace fovea::train {

/// Symmetric cross-entropy of matching pairs: image b belongs to text b.
///   mean over b of -log softmax_k(sharpness * scores[b,k])[b], plus the same over images for each text
/// Shapes   scores [B,B], image b and text k -> a number
/// Errors   ArgumentError: not square, or empty
/// Source   Huang et al. 2021 (GLoRIA), eq. 6 to 8 (sharpness is temp3 of its code, 10); Radford et al. 2021 (CLIP) with
///          half the sum
torch::Tensor contrastive_loss(const torch::Tensor& scores, double sharpness = 10);

}  // namespace fovea::train
