#pragma once
#include <filesystem>

#include "fovea/core/geometry.h"
#include "fovea/recipes/ct_asks_pet.h"

namespace fovea::recipes {

/// Around one focus of a real PET/CT study of the chest, folders `CT` and `PT_AC` of DICOM files: the PET in SUV within
/// 54 mm of the hottest voxel that lies no further than 20 mm from `near_mm` (RAS), every second CT voxel in plane within
/// 30 mm, and as voxels that ask the soft tissue (HU > -200) within 12 mm. The CT is (HU + 850) / 900: lung 0, tumour 1.
/// Errors   IoError: unreadable, no SUV, no voxel there, no soft tissue
CtPetStudy read_ct_pet_study(const std::filesystem::path& folder, const Point& near_mm);

/// Where the mass of the study that `check A5` reads lies: ACRIN-NSCLC-FDG-PET-042, right hilum.
inline constexpr Point kRightHilum{39.8, 25.8, -98.6};

}  // namespace fovea::recipes
