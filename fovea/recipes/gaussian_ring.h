#pragma once
#include <cstdint>
#include <string>
#include <vector>

// Where should a few points sample a Gaussian tumour exp(-r^2 / 2 sigma^2)? Row A3.
namespace fovea::recipes {

/// What the points shall tell.
enum class RingGoal {
  kPosition,   ///< where the tumour is
  kSize,       ///< how large it is
  kIntensity,  ///< nothing: they shall read as much brightness as they can
};
std::string name_of(RingGoal goal);

/// The radius in sigma, on a grid of step 1e-4 up to 4, at which is largest:
struct BestRadii {
  double edge = 0;        // |d intensity / d position|, information about position; also the mass on a ring, r I(r)
  double size = 0;        // |d intensity / d sigma|, information about size
  double shell_mass = 0;  // the mass on a 3-D shell, r^2 I(r)
  double intensity = 0;   // the intensity itself
};
BestRadii best_radii();

/// The points that a trained layer samples in a tumour of one size.
struct RingPoints {
  double sigma_vox = 0;
  double radius = 0;                             // mean |offset| in sigma, weighted by attention
  std::vector<double> x_vox, y_vox, weights;     // of each point; weights sum to 1
};
struct LearnedRing {
  std::vector<RingPoints> tumours;  // in the order asked for
  double error = 1;                 // mean squared error over variance: 1 knows nothing. Of kIntensity: 1 - mean reading
};

/// Trains eight points of nn::MultiScaleDeformableAttention, offsets and weights predicted from the tumour's
/// size at an earlier scan, and a linear read-out of what they sample, on simulated follow-up scans of tumours between 1.5 and 9
/// voxels (recipes/gaussian_tumour.h). For position and size they sample the follow-up less the earlier scan, and each reading
/// has noise of its own: the small displacement that best_radii() is about. Of the raw scan with noise in its voxels the
/// best ring for the position is wider, because interpolation errors and the noise that close points share
/// fall with the radius. The points start in eight directions, 0.8 to 2 sigma from the centre, at random.
/// With `only_vox` all tumours have that sigma. Same seed, same result.
/// Cost     about 1 ms a step on one thread
LearnedRing learn_ring(RingGoal goal, const std::vector<double>& sigmas_vox, uint64_t seed, int64_t steps = 6000,
                       double only_vox = 0);

}  // namespace fovea::recipes
