#pragma once
#include <torch/torch.h>

#include <array>
#include <cstdint>

// Does each head become the specialist of one tissue, with a temperature of its own? Row P6.
namespace fovea::recipes {

enum Tissue { kTumour, kOedema, kNormal };
constexpr int64_t kTissues = 3, kTissueTokens = 24, kTissueFeatures = 12;

/// Made-up scans of 72 feature vectors, 24 of each tissue. A tissue has a plane of its own, orthogonal to the others;
/// there its vectors lie on the unit circle in clusters: tumour in 8 tight ones (4 degrees), oedema in 4 medium ones
/// (12), normal tissue in 2 broad ones (35), turned at random. Every cluster has a value, which each of its vectors
/// carries with noise of 0.5. One query names a place in each plane, close to the centre of a cluster: what are the
/// values of these three clusters?
struct TissueScans {
  torch::Tensor vectors;  // [B,72,12] f32: three planes (0-5), which tissue (6-8), noisy value (9); tissue by tissue
  torch::Tensor query;    // [B,1,12]: three places (0-5) and a mark (10)
  torch::Tensor values;   // [B,3], to be told
};
TissueScans draw_tissue_scans(int64_t count, at::Generator generator);

/// What one attention layer learnt, on 4096 fresh scans. Squared errors are per tissue, in units of the values'
/// variance; 1 is knowing nothing.
struct TissueLayer {
  std::array<double, kTissues> error{};
  int64_t parameters = 0;
  double mean_error() const { return (error[0] + error[1] + error[2]) / kTissues; }
};

struct TissueHeads {
  TissueLayer three, one;  // three heads, and one of the same width: 4 E^2 weights each, and a beta a head
  TissueLayer shared;      // three heads whose beta all stay where they began
  double beta_of_one = 0;
  // Of the three heads, in the order of the tissues that they look at most: head t is the one of tissue t.
  bool each_has_its_own = false;  // the three heads look most at three different tissues
  std::array<double, kTissues> beta{}, tau{};
  std::array<std::array<double, kTissues>, kTissues> purity{};    // [head][tissue]: share of the head's attention
  std::array<std::array<double, kTissues>, kTissues> ablation{};  // [head][tissue]: error added when the head says its
                                                                  // mean instead
};

/// Trains the three layers on the same scans for 1500 steps: cosine scores (queries and keys of unit length), so that
/// nothing but beta = 1 / tau makes a head sharp. Same seed, same result.
/// Cost     about 10 s
TissueHeads learn_three_tissues(uint64_t seed);

}  // namespace fovea::recipes
