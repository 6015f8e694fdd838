#pragma once
#include <string>
#include <utility>
#include <vector>

#include "fovea/core/volume.h"

namespace fovea::data {

/// The digital phantom of the Image Biomarker Standardisation Initiative: 5 x 4 x 4 voxels of 2 mm with levels 1 to 6,
/// 74 of them in the mask.
struct IbsiPhantom {
  Volume image;  // f32; -1 outside of the mask
  Volume mask;   // u8
};
IbsiPhantom ibsi_phantom();

/// Reference values of features of the phantom with bins of width 1, as printed: three digits. Where the initiative
/// defines a feature otherwise than pyradiomics, or gives none, there is none here. Texture: of the whole volume, where
/// there are directions the mean over them.
/// Source   Zwanenburg et al., IBSI reference manual, arXiv:1612.07003, section 5.1 and the tables of chapter 3
const std::vector<std::pair<std::string, double>>& ibsi_reference();  // {"glcm_JointEntropy", 2.4}

/// Whether a computed value is the printed one to its three digits.
bool agrees_with_printed(double value, double printed);

}  // namespace fovea::data
