#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "fovea/core/rng.h"
#include "fovea/core/view.h"

namespace fovea::data {

/// What random numbers of a sample depend on: never on threads, workers or what was drawn before.
struct SampleKey {
  uint64_t seed = 0;
  uint32_t epoch = 0;
  uint32_t index = 0;  // of the sample within the epoch

  Rng rng(uint32_t stream) const { return Rng(seed, epoch, index, stream); }
};

/// Streams of a sample's random numbers: one a use, so that changing one setting leaves the others' numbers as they
/// were.
enum SampleStream : uint32_t {
  kSplits = 1,
  kCaseOrder,
  kPosition,
  kFlip,
  kRotation,
  kScale,
  kTranslation,
  kElastic,
  kNoise,
  kBlur,
  kBrightness,
  kContrast,
  kLowResolution,
  kGammaInverted,
  kGamma,
  kPhantom
};

/// Where each class lies in a case: at most `kept` voxels a class, evenly spread over all of its voxels, with the true
/// counts.
struct ForegroundIndex {
  std::vector<int64_t> counts;               // voxels of class k
  std::vector<std::vector<int64_t>> voxels;  // linear indices (z * Y + y) * X + x, ascending; empty for class 0
  std::vector<int> present;                  // classes above 0 that occur, ascending

  static constexpr int64_t kept = 10000;
  /// label: contiguous class indices. Errors: ArgumentError for one out of range. Cost: two passes. T: uint8_t or
  /// int16_t.
  template <class T>
  static ForegroundIndex of(const View<const T, 3>& label, int64_t classes);
};

struct PatchPosition {
  std::array<int64_t, 3>
      begin{};           // may be negative or reach beyond the volume where the volume is smaller than the patch
  int forced_class = 0;  // class whose voxel the patch was built around; 0: anywhere
};

/// True for the samples that are built around a foreground voxel: exactly floor(n * fraction) of the first n samples of
/// an epoch, evenly spread (with 1/3: the third, sixth, ...).
bool forces_foreground(uint32_t index, double fraction);

/// Case of a sample: the cases in a new random order each time all have been seen, so an epoch visits them equally
/// often.
int64_t case_of_sample(uint64_t seed, uint32_t epoch, uint32_t index, int64_t cases);

/// Position of a patch. Unforced: uniform over all positions inside the volume (an axis shorter than the patch is
/// centred). Forced: a class uniformly among those present, a voxel uniformly within the class, the patch centred on it
/// and then moved into the volume as far as it fits. A case without foreground is sampled unforced.
PatchPosition choose_position(const std::array<int64_t, 3>& volume, const std::array<int64_t, 3>& patch,
                              const ForegroundIndex& foreground, bool forced, const SampleKey& key);

}  // namespace fovea::data
