#pragma once
#include <cstdint>
#include <string>
#include <vector>

// Lesions of unequal size in 3-D, read at 27 points: does it pay that the points adapt to the lesion? Row A3.
namespace fovea::recipes {

/// Where the 27 points lie.
enum class SamplePoints {
  kDeformable,  ///< predicted from features of the lesion
  kFixedGrid,   ///< the 3x3x3 voxels around it
  kWideGrid,    ///< a 3x3x3 grid whose spacing is learned, the same for every lesion
};
std::string name_of(SamplePoints points);

struct SamplingScore {
  double error = 1;        // mean squared error of shift and growth over their variance: 1 knows nothing
  double small_error = 1;  // of lesions below 2.5 voxels
  double large_error = 1;  // of those above 4
  int64_t parameters = 0;
};

/// Trains readers of simulated follow-up scans (recipes/gaussian_tumour.h, 3-D, sigma 1.5 to 5 voxels): how far has the
/// lesion moved, how much has it grown? Each reads 27 samples and the features of the earlier scan through a perceptron;
/// that of the grids is wider, by as many weights as predict the offsets. All on the same scans. Same seed, same result.
/// Cost     about 0.05 s a step for all three on one thread
std::vector<SamplingScore> learn_lesion_sampling(const std::vector<SamplePoints>& kinds, uint64_t seed, int64_t steps = 400);

}  // namespace fovea::recipes
