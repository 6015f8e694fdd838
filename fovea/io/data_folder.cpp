#include "fovea/io/data_folder.h"

#include <cstdlib>

namespace fovea::io {

namespace {
// A variable that is set and not empty.
std::optional<std::filesystem::path> folder_in(const char* variable) {
  const char* value = std::getenv(variable);
  if (!value || !*value) return {};
  return value;
}
}  // namespace

std::filesystem::path data_folder() {
  if (const auto own = folder_in("FOVEA_DATA")) return *own;
  if (const auto share = folder_in("XDG_DATA_HOME")) return *share / "fovea";
  return folder_in("HOME").value_or(".") / ".local/share/fovea";
}

std::optional<std::filesystem::path> find_data(const std::string& name) {
  const std::filesystem::path path = data_folder() / name;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return {};
  return path;
}

}  // namespace fovea::io
