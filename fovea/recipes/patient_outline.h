#pragma once
#include <filesystem>
#include <vector>

#include "fovea/recipes/patient_model.h"

namespace fovea::recipes {

/// Writes FOLDER/ID.nii.gz for each patient who has the first image: 1 where the network finds the masked region more
/// likely than not, else 0, on the scan's own voxels with its header. Probabilities are carried from the network's grid to
/// the scan by trilinear interpolation; beyond what the network looked at (image.field_mm) nothing is found.
/// patients: of encode(table, model.inputs).
/// Returns  the files
/// Errors   ArgumentError: a model that was not trained to outline, an id that is no file name; as io::write_image()
std::vector<std::filesystem::path> write_outlines(const PatientModel& model, const data::PatientTable& table,
                                                  const EncodedPatients& patients, const std::filesystem::path& folder);

}  // namespace fovea::recipes
