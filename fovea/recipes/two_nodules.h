#pragma once
#include <torch/torch.h>

#include <string>
#include <vector>

#include "fovea/recipes/check.h"

// Two nodules far apart in one scan, of the same or of different texture: who can compare them? Row P3a.
namespace fovea::recipes {

/// Made-up scans of 64^3 voxels: a noisy lung with two balls of radius 6, one near each end of the x axis, at least 32
/// voxels of lung between them, each in the lower or upper half in z and in y. A ball is striped across z
/// or across y.
struct NodulePairs {
  torch::Tensor voxels;   // [B,1,64,64,64] f32
  torch::Tensor same;     // [B] f32: 1 where both have one texture, in half of the scans
  torch::Tensor texture;  // [B,2] int64, left and right: the axis that the stripes lie across
  torch::Tensor centre;   // [B,2,3] int64, voxels Z, Y, X
};
/// `lungs` are the backgrounds to draw from, [K,64,64,64].
NodulePairs draw_nodule_pairs(int64_t count, const torch::Tensor& lungs, at::Generator generator);
torch::Tensor draw_lungs(int64_t count, at::Generator generator);

/// How a network can carry news of one nodule to the other. All attention networks have 4 blocks of width 32 with 4
/// heads on 2x2x4 tokens of 32x32x16 voxels. Nothing but attention mixes tokens: what they say in the end is averaged
/// and read linearly, and so is what the convolutions say. No sum of a word on the left nodule and one on the right
/// tells same from different.
enum class NoduleNetwork {
  kGlobal,          ///< every token attends to every other
  kShiftedWindows,  ///< windows of 2x2x2 tokens, every second block shifted by one token along x
  kWindows,         ///< the same without shift: no window holds both ends of the x axis
  kSmallField,      ///< three convolutions, a field of 28 voxels
};
std::string name_of(NoduleNetwork network);

/// True where one output can depend on both nodules together.
bool can_compare_nodules(NoduleNetwork network);

/// On 512 fresh scans with fresh lungs after the training. Chance: accuracy 1/2, cross-entropy ln 2.
struct NoduleScore {
  double accuracy = 0, cross_entropy_nats = 0;
};

/// Trains the networks on the same scans, drawn anew in each of `steps` steps. Same seed, same result.
/// Cost     about 0.1 s a step for all four on one thread
std::vector<NoduleScore> learn_two_nodules(const std::vector<NoduleNetwork>& networks, uint64_t seed,
                                           int64_t steps = 200);

/// The figures of the task for a row's check: one seed, five with --full.
void check_two_nodules(CheckResult& result, const CheckOptions& options, const std::vector<NoduleNetwork>& networks);

}  // namespace fovea::recipes
