#pragma once
#include <torch/torch.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "fovea/data/patch_mask.h"
#include "fovea/models/masked_autoencoder.h"

// Rebuild a scan from a few of its patches. Row A9, claims C40, C41 and C49, lesson hidden-97.
namespace fovea::recipes {

/// Of a hidden block inside a cube of 16^3 blocks: are its 6 face neighbours all hidden, are all 26, how many of 26 are
/// visible.
struct HiddenNeighbours {
  std::array<double, 3> exact{};         // hypergeometric: probability, probability, mean
  std::array<double, 3> mean{}, error{};  // over drawn masks, with standard errors
  /// Largest distance of the two in standard errors.
  double standard_errors() const;
};
HiddenNeighbours hidden_neighbours(double ratio, int masks, uint64_t seed);

/// Scans on one grid, each with mean 0 and deviation 1, and labels of the same voxels where there are any.
struct ScanSet {
  std::string name;
  torch::Tensor train, test;                // [n,1,Z,Y,X] f32
  torch::Tensor train_labels, test_labels;  // [n,Z,Y,X] int64
  int64_t classes = 0;                      // background included
  std::array<double, 3> voxel_mm{};
  std::vector<int64_t> patch;
};
/// The Decathlon's hippocampus scans in Task04_Hippocampus of the data folder: the middle 30x48x30 mm as 15x24x15 voxels of 2
/// mm in 200 patches; every fourth scan is for the test. Nothing if they are not there.
std::optional<ScanSet> hippocampus_scans();
/// Heads at 5.8 mm: Colin27 (Debian mricron-data) to learn from and the MNI152 average (`scripts/data mni152`) for the test,
/// 216 patches. Nothing if either is not there.
std::optional<ScanSet> head_scans();

/// The masked autoencoder of these experiments, for the grid of a set; with classes the one that labels voxels.
models::MaskedAutoencoderConfig autoencoder_for(const ScanSet& scans, int64_t classes = 0);

struct HidingOptions {
  std::vector<double> ratios = {0.75, 0.9, 0.97};  // one of them a step
  data::PatchMask mask = data::PatchMask::kRandom;
  int64_t steps = 600, batch = 32;
  int64_t move = 0;  // voxels
  double rate = 3e-3;
};
/// Learns to rebuild hidden patches of the training scans (AdamW 0.9, 0.95, decay .05; warm-up and cosine), which are
/// moved by up to `move` voxels at random. Same seed, same result.
/// Cost     some 40 s on one thread
models::MaskedAutoencoder learn_to_rebuild(const ScanSet& scans, const HidingOptions& options, uint64_t seed);

/// Mean square error of hidden voxels in units of a scan's variance.
struct RebuildErrors {
  double network = 0;
  double patch_mean = 0;  // the mean of the visible patches
  double nearest = 0;     // the nearest visible voxel
  double trilinear = 0;   // tents over the means of visible patches, as wide as they must be to reach one
  double atlas = 0;       // the voxel's mean over the training scans: knows where it is, nothing of this scan
  double patches = 0;     // how many were hidden, mean over scans
};
struct Rebuilding {
  double ratio = 0;
  RebuildErrors all, lonely;  // lonely: hidden patches none of whose 26 neighbours is visible
  double distance_mm = 0;     // which the decoder's hidden patches attend over, to visible ones; mean over blocks, heads
  double uniform_mm = 0;      // the same for equal weights: what the geometry alone gives
};
/// On test scans, one mask each, or eight in all where there are fewer.
Rebuilding rebuild(models::MaskedAutoencoder& network, const ScanSet& scans, double ratio, uint64_t seed);

/// hidden patches by trilinear tents, [1,Z,Y,X] from one scan [1,Z,Y,X] and its kept patches [K].
torch::Tensor trilinear_from_visible(const torch::Tensor& scan, const torch::Tensor& kept, const std::vector<int64_t>& patch);
/// The same by the nearest visible voxel.
torch::Tensor nearest_visible(const torch::Tensor& scan, const torch::Tensor& kept, const std::vector<int64_t>& patch);

struct LabelOptions {
  int64_t slices = 5;  // labelled: one of each of as many training scans
  int64_t steps = 150;
  int64_t move = 1;  // voxels
  double rate = 2e-3;
};
/// Mean Dice of the test scans' structures after learning from a few labelled slices; `start`: whose encoder to begin with,
/// or none. The decoder begins at random either way, as in He et al.: one that invents hidden patches was a worse start
/// (seeds 100 and 101, on which steps and rate were chosen too).
double learn_labels(const ScanSet& scans, const models::MaskedAutoencoderImpl* start, const LabelOptions& options, uint64_t seed);

/// Seconds of one encoder step, forward and backward, at a ratio; the least of several.
double encoder_seconds(double ratio, int repeats);
/// What arithmetic predicts of it: multiplications of that step.
double encoder_multiplications(double ratio);

}  // namespace fovea::recipes
