#pragma once
#include <filesystem>

#include "fovea/report/image.h"

namespace fovea::report {

/// Writes NAME.dzi and NAME_files/LEVEL/COLUMN_ROW.png: a picture that OpenSeadragon, QuPath's web viewers and libvips show at
/// any zoom. The last level is the picture, each before it half its size, the first one pixel; tiles of 254 pixels that
/// overlap by one.
/// path     NAME.dzi
/// Errors   ArgumentError unless the picture is RGB and the path ends in .dzi; IoError, ResourceError from the disk
/// Source   Deep Zoom file format overview (Microsoft); http://schemas.microsoft.com/deepzoom/2008
/// Returns  how many tiles there are.
int64_t write_deep_zoom(const std::filesystem::path& path, Image picture);

}  // namespace fovea::report
