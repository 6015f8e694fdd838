#pragma once
#include <filesystem>
#include <string_view>

namespace fovea::report {

/// Writes `content` to `path`, whole or not at all: to a temporary file in the same folder, then renamed.
/// (The same promise as io's AtomicFile, which lies in a layer that report does not see.)
/// Errors: IoError with the system's reason; an earlier file at `path` is then untouched.
void save_file(const std::filesystem::path& path, std::string_view content);

}  // namespace fovea::report
