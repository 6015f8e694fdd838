#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

#include "fovea/data/radiomics.h"

namespace fovea::recipes {

/// Our features beside the reference values that pyradiomics keeps for its own tests.
struct BaselineComparison {
  int64_t values = 0;      // compared
  double worst = 0;        // largest difference, relative to the reference value (below 1e-6: to 1e-6)
  std::string worst_name;  // "brain1_2d glcm_Contrast"
  int64_t other_mesh = 0;  // values of kOtherMesh, not in the above
  double other_mesh_worst = 0;
};

/// One column of the shape values was written by a pyradiomics before it mended its table of triangles; today's gives
/// others there.
inline constexpr const char* kOtherMesh =
    "brain1's mesh volume, surface, their ratio and sphericity, written by pyradiomics 2.0.1b1 before its triangles "
    "were "
    "mended";

/// Settings as pyradiomics prints them: "{'binWidth': 25, 'force2D': True, ...}".
data::RadiomicsOptions options_of_settings(const std::string& settings);

/// folder: NAME_image.nrrd, NAME_label.nrrd and baseline/baseline_FAMILY.csv, as in pyradiomics' data folder. Columns
/// of scans that are not there are left out. Errors: IoError.
BaselineComparison compare_with_baselines(const std::filesystem::path& folder);

}  // namespace fovea::recipes
