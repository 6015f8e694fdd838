#pragma once
#include <filesystem>
#include <optional>
#include <span>

#include "fovea/io/slide.h"

namespace fovea::io {

/// Writes a slide as tiled, deflated TIFF that OpenSlide, QuPath and libvips read; levels[0] is the finest. The resolution
/// goes into the tags of each level. The file appears whole or not at all.
/// Errors   ArgumentError: no level, or one whose bytes are not height x width x 3; ResourceError beyond the 4 GiB of a
///          classic TIFF; as AtomicFile
void write_pyramid_tiff(const std::filesystem::path& path, std::span<const SlideRegion> levels, std::optional<double> um_per_pixel);

/// Half the size: each pixel the mean of up to four.
SlideRegion halved(const SlideRegion& region);

}  // namespace fovea::io
