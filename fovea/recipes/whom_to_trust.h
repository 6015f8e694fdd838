#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fovea/core/volume.h"

// Does a class token look at hand-crafted texture features or at what a network sees? Row A8.
namespace fovea::recipes {

/// A made-up scan of 12^3 voxels with an ellipsoid lesion and a wall beside it. Two coins are thrown for each:
///   rich      the lesion's intensities are even over a range; else they take two values, as often as not. Mean and
///             deviation (drawn from 30 to 90) tell nothing: the entropy of the texture does.
///   attached  the wall touches the lesion; else there are two voxels between. The mask ends at the lesion, so that no
///             feature of the masked voxels can know.
struct SimulatedLesion {
  Volume image;  // f32
  Volume mask;   // u8, the lesion
  bool rich = false, attached = false;
};
SimulatedLesion draw_lesion(uint64_t seed, uint32_t index);

/// What is to be told of a lesion.
enum class LesionTask { kTexture, kContext };
std::string name_of(LesionTask task);  // "texture"

/// On 1024 fresh lesions.
struct TrustScore {
  double accuracy = 0, cross_entropy_nats = 0;
};

/// What one task's networks learnt: nn::ClassToken over 27 cells of the scan (nn::VolumeTokens) and a radiomics token.
struct Trust {
  TrustScore both;
  TrustScore radiomics_alone, scan_alone;  // the same network, the other side missing
  TrustScore concatenation;                // means of both sides side by side, as many weights, no attention
  int64_t parameters = 0, concatenation_parameters = 0;
  // The class token's attention, mean over heads and lesions: exact rows, which sum to 1.
  double on_radiomics = 0, on_scan = 0, on_itself = 0;
  // Cross-entropy added when one side is another lesion's. Attention is not importance: both are reported.
  double radiomics_ablation = 0, scan_ablation = 0;
};

/// Trains the four networks on the same 2048 lesions for 400 steps of 32. The 107 features are z-scores of the training
/// lesions.
/// Cost     about half a minute a task on one core
Trust learn_whom_to_trust(LesionTask task, uint64_t seed);

}  // namespace fovea::recipes
