#pragma once
#include <torch/torch.h>

#include <cstdint>
#include <vector>

// A map of importance that costs two handfuls of weights: does it find the lesions, and does it help? Row A4.
namespace fovea::recipes {

/// Made-up scans: noise of deviation 1, two to four bright balls (the lesions, contrast 1, radius 2.5 to 4.5 voxels) and
/// as many bright vessels (lines one voxel wide, contrast 3), which are no lesions.
struct LesionScans {
  torch::Tensor voxels;  // [B,1,N,N,N] f32
  torch::Tensor mask;    // [B,1,N,N,N] f32: 1 inside a lesion
};
LesionScans draw_lesion_scans(int64_t count, int64_t edge, at::Generator generator);

/// What one network did on fresh scans.
struct LesionScore {
  double dice = 0;
  int64_t parameters = 0, gate_parameters = 0;
  // Of a network with a gate:
  double map_auc = 0;         // area under the ROC curve of the map against the lesions, voxel by voxel
  double auc_other_scan = 0;  // the same of the map of another scan, which knows nothing of these lesions
  double dice_other_scan = 0;  // Dice when each scan is gated by the map of another
};

struct LesionRun {
  LesionScore score;
  torch::Tensor slice, mask, map;  // [N,N] of one fresh scan where most lesion is; map undefined without a gate
};

/// Trains networks of two 3x3x3 convolutions with 8 channels and a linear read-out of each voxel, before which stands a
/// spatial gate of the given kernel edge (0: none), from the same weights on the same scans. Same seed, same result.
/// Cost     about 0.05 s a step and network at edge 32, 0.2 s at 64, on one thread
std::vector<LesionRun> learn_lesion_gate(const std::vector<int64_t>& kernels, uint64_t seed, int64_t edge = 32,
                                         int64_t steps = 150);

}  // namespace fovea::recipes
