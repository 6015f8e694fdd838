#pragma once
#include <filesystem>
#include <optional>

#include "fovea/core/geometry.h"
#include "fovea/recipes/segment_predict.h"

namespace fovea::recipes {

struct ExplainOptions {
  std::optional<Point> at_mm;                        // RAS
  std::optional<std::array<int64_t, 3>> at_xyz;      // voxel index of the scan as its file orders it
  bool mirror_left_right = false;                    // as in PredictOptions
};

/// For one voxel: which voxels each head of each attention block attends to, exactly. Writes to `folder`, whole or not at all:
///   BLOCK.nii.gz for each block, f32 with one channel a head, on the scan's own grid: share of attention of each voxel
///   explain.json: the voxel, and for each head entropy, effective number of keys and mean attended distance
/// Errors   ArgumentError: neither or both positions, or one outside the scan; IoError for the scan.
void explain_voxel(const Segmenter& segmenter, const PredictInput& input, const ExplainOptions& options, const std::filesystem::path& folder);

}  // namespace fovea::recipes
