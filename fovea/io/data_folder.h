#pragma once
#include <filesystem>
#include <optional>
#include <string>

namespace fovea::io {

/// Where `scripts/data` puts tables and images that packages carry: $FOVEA_DATA, else $XDG_DATA_HOME/fovea, else
/// ~/.local/share/fovea.
std::filesystem::path data_folder();

/// A file or folder there, or nothing when it has not been fetched.
std::optional<std::filesystem::path> find_data(const std::string& name);

}  // namespace fovea::io
