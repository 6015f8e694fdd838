#include "fovea/train/checkpoint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "fovea/core/error.h"
#include "fovea/core/progress.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/input_file.h"
#include "fovea/io/sha256.h"

namespace fovea::train {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFormat = "fovea-checkpoint";
constexpr int kVersion = 1;
constexpr const char* kManifest = "manifest.json";
// Hidden names that no reader takes for a checkpoint: being written, and being removed.
constexpr std::string_view kNew = ".new-", kOld = ".old-";

[[noreturn]] void fail(const fs::path& path, const char* action) {
  throw ResourceError(path.string() + ": cannot " + action + ": " + std::strerror(errno) +
                      "; older checkpoints are as they were");
}

void flush_folder(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail(path, "open the folder");
  const int result = ::fsync(descriptor), error = errno;
  ::close(descriptor);
  // Some file systems cannot flush a folder.
  if (result != 0 && error != EINVAL && error != EROFS) errno = error, fail(path, "flush the folder");
}

std::string json_text(const io::Json& json) { return json.dump(2) + "\n"; }

/// Checks every byte of a checkpoint folder against its manifest. Errors: IoError.
void verify(const fs::path& folder, int64_t step) {
  const fs::path path = folder / kManifest;
  const std::string text = io::read_text(path, 1 << 20);
  io::Json manifest;
  try {
    manifest = io::parse_json(text, path.string());
    // Re-written it must be the same bytes: so a flipped bit anywhere in the manifest shows.
    if (json_text(manifest) != text) throw IoError(path, "is not as it was written");
    if (manifest.at("format") != kFormat) throw IoError(path, "format is not " + std::string(kFormat));
    if (io::whole_number(manifest.at("version")) > kVersion)
      throw IoError(path, "is of a later version of Fovea; update Fovea to use it");
    if (io::whole_number(manifest.at("version")) != kVersion || io::whole_number(manifest.at("step")) != step ||
        manifest.size() != 4) {
      throw IoError(path, "does not belong to this checkpoint");
    }
    const io::Json& files = manifest.at("files");
    for (const char* name : {"weights.safetensors", "optimizer.safetensors", "state.json", "timing.json"}) {
      if (!files.contains(name)) throw IoError(path, "does not list " + std::string(name));
    }
    for (const auto& [name, entry] : files.items()) {
      const fs::path file = folder / name;
      if (fs::path(name).filename() != name) throw IoError(path, "lists a file outside its folder");
      const uint64_t expected = uint64_t(io::whole_number(entry.at("bytes"))), found = io::InputFile(file).size();
      if (found != expected)
        throw IoError(file, "has " + std::to_string(found) + " bytes, expected " + std::to_string(expected));
      if (io::sha256_file(file) != entry.at("sha256").get<std::string>())
        throw IoError(file, "is damaged: its SHA-256 is not that of the manifest");
    }
  } catch (const nlohmann::json::exception&) {
    throw IoError(path, "lacks a field of the checkpoint format");
  }
}

}  // namespace

CheckpointFolder::CheckpointFolder(const fs::path& path) : path_(path) {
  std::error_code error;
  if (!fs::is_directory(path_)) {
    fs::create_directories(path_, error);
    if (error) throw IoError(path_, "cannot be made: " + error.message());
    ::chmod(path_.c_str(), 0700);
  }
  std::vector<fs::path> strays;
  for (const auto& entry : fs::directory_iterator(path_)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kNew) || name.starts_with(kOld)) strays.push_back(entry.path());
  }
  for (const fs::path& stray : strays) fs::remove_all(stray, error);
}

std::vector<int64_t> CheckpointFolder::steps() const {
  std::vector<int64_t> found;
  for (const auto& entry : fs::directory_iterator(path_)) {
    const std::string name = entry.path().filename().string();
    int64_t step = -1;
    if (!name.starts_with("step-")) continue;
    const auto parsed = std::from_chars(name.data() + 5, name.data() + name.size(), step);
    if (parsed.ec == std::errc() && parsed.ptr == name.data() + name.size() && step >= 0) found.push_back(step);
  }
  std::sort(found.begin(), found.end());
  return found;
}

void CheckpointFolder::save(const Checkpoint& checkpoint, std::optional<int64_t> best_step) {
  const std::string name = "step-" + std::to_string(checkpoint.step);
  const fs::path fresh = path_ / (std::string(kNew) + name), target = path_ / name;
  std::error_code ignored;
  fs::remove_all(fresh, ignored);
  try {
    if (::mkdir(fresh.c_str(), 0700) != 0) fail(fresh, "make the folder");
    io::write_safetensors(fresh / "weights.safetensors", checkpoint.weights);
    io::write_safetensors(fresh / "optimizer.safetensors", checkpoint.optimizer);
    if (!checkpoint.average.empty()) io::write_safetensors(fresh / "average.safetensors", checkpoint.average);
    io::write_json(fresh / "state.json", checkpoint.state);
    io::write_json(fresh / "timing.json", checkpoint.timing);
    io::Json files = io::Json::object();
    std::vector<fs::path> written;
    for (const auto& entry : fs::directory_iterator(fresh)) written.push_back(entry.path());
    std::sort(written.begin(), written.end());
    for (const fs::path& file : written) {
      files[file.filename().string()] = {{"bytes", fs::file_size(file)}, {"sha256", io::sha256_file(file)}};
    }
    const io::Json manifest = {{"format", kFormat}, {"version", kVersion}, {"step", checkpoint.step}, {"files", files}};
    io::write_file(fresh / kManifest, json_text(manifest));
    flush_folder(fresh);
    // Only a damaged checkpoint that the run was resumed behind can be in the way.
    if (fs::exists(target)) remove(target);
    if (::rename(fresh.c_str(), target.c_str()) != 0) fail(target, "rename the finished checkpoint");
    flush_folder(path_);
  } catch (...) {
    fs::remove_all(fresh, ignored);
    throw;
  }
  remove_all_but(checkpoint.step, best_step);
}

void CheckpointFolder::remove(const fs::path& folder) {
  // Renamed first, so that a kill half-way leaves no half checkpoint under a real name.
  const fs::path old = path_ / (std::string(kOld) + folder.filename().string());
  std::error_code ignored;
  fs::remove_all(old, ignored);
  if (::rename(folder.c_str(), old.c_str()) != 0) fail(folder, "remove");
  fs::remove_all(old, ignored);
}

void CheckpointFolder::remove_all_but(int64_t newest, std::optional<int64_t> best_step) {
  std::vector<int64_t> older;
  for (const int64_t step : steps()) {
    if (step < newest) older.push_back(step);
  }
  if (!older.empty()) older.pop_back();  // the last but one stays
  for (const int64_t step : older) {
    if (step != best_step) remove(path_of(step));
  }
}

Checkpoint CheckpointFolder::load(int64_t step) const {
  const fs::path folder = path_of(step);
  verify(folder, step);
  Checkpoint c;
  c.step = step;
  c.weights = io::read_safetensors(folder / "weights.safetensors");
  c.optimizer = io::read_safetensors(folder / "optimizer.safetensors");
  if (fs::exists(folder / "average.safetensors")) c.average = io::read_safetensors(folder / "average.safetensors");
  c.state = io::read_json(folder / "state.json");
  c.timing = io::read_json(folder / "timing.json");
  return c;
}

std::optional<Checkpoint> CheckpointFolder::load_latest() const {
  const std::vector<int64_t> all = steps();
  for (auto step = all.rbegin(); step != all.rend(); ++step) {
    try {
      return load(*step);
    } catch (const Error& error) {
      if (error.code() == ExitCode::kOutOfResource) throw;
      print_line(std::string("warning: ") + error.what() + "; trying the checkpoint before it");
    }
  }
  if (all.empty()) return std::nullopt;
  throw IoError(path_,
                "holds " + std::to_string(all.size()) + " checkpoints, all damaged; remove the folder to start afresh");
}

}  // namespace fovea::train
