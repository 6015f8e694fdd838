#pragma once
#include <string>
#include <vector>

#include "fovea/io/slide.h"

namespace fovea::data {

/// Colour and texture of a tile in 48 numbers. No encoder was trained on pathology for this, and none is inside: it is what
/// a method gets without a download, and the honest floor under features of a foundation model.
///   haematoxylin and eosin (optical density unmixed by Ruifrok and Johnston's vectors): mean, deviation, 10th, 50th, 90th
///   percentile each; saturation and brightness: mean, deviation; gradient of the haematoxylin at 1, 2, 4 pixels: mean,
///   deviation; share of dark-blue pixels; local binary patterns of the haematoxylin at 1, 2 and 4 pixels: histogram of ten
/// Cost     some 4 ms for 256 x 256 pixels
/// Source   Ruifrok and Johnston 2001; Ojala, Pietikainen and Maenpaa 2002 (uniform, rotation-invariant patterns of 8)
std::vector<float> tile_statistics(const io::SlideRegion& tile);

/// The name of each number, in order.
const std::vector<std::string>& tile_statistics_names();

/// What feature files and models call this encoder.
inline constexpr const char* kTileStatistics = "colour-texture-48";

}  // namespace fovea::data
