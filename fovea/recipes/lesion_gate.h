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

/// What stands before the read-out.
struct LesionArm {
  int64_t kernel = 0;       // edge of the spatial gate; 0: none, and a hidden layer wider by as many parameters as a gate of 3 has
  bool other_scan = false;  // control: gated by another scan's map, in training too
};

/// What one network did on fresh scans.
struct LesionScore {
  double dice = 0;  // of all scans' voxels together
  std::vector<double> dice_by_scan;
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

constexpr int64_t kLesionGateSteps = 300;

/// Trains networks of one 3x3x3 convolution with 8 channels, a hidden layer of each voxel and a linear read-out, before
/// which stands a spatial gate, on the same scans. A voxel sees 3x3x3 voxels, too few to tell a lesion in the noise; only
/// the gate of k > 1 sees further. Same seed, same result.
std::vector<LesionRun> learn_lesion_gate(const std::vector<LesionArm>& arms, uint64_t seed, int64_t edge = 32,
                                         int64_t steps = kLesionGateSteps);

}  // namespace fovea::recipes
