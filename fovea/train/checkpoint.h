#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "fovea/io/json_file.h"
#include "fovea/io/safetensors.h"

namespace fovea::train {

/// Everything a training needs in order to go on as if it had never stopped.
struct Checkpoint {
  int64_t step = 0;         // optimizer steps done
  io::TensorMap weights;    // parameters and buffers by name
  io::TensorMap optimizer;  // "m.NAME", "v.NAME"
  io::TensorMap average;    // running average of the weights, by name; empty without one
  io::Json state;           // position, counters, best metric, log positions
  io::Json timing;          // what differs between equal runs: seconds used
};

/// The folder runs/NAME/checkpoints. One checkpoint is a folder step-N of
///   weights.safetensors  optimizer.safetensors  average.safetensors (if any)  state.json  timing.json
///   manifest.json        {"format", "version", "step", "files": {name: {"bytes", "sha256"}}}, written last
/// A checkpoint is whole or absent: files are written and flushed in a hidden folder, which is renamed when all are
/// there; then the parent is flushed. Two equal trainings leave equal bytes in every file but timing.json and
/// manifest.json.
class CheckpointFolder {
 public:
  /// Makes the folder if need be and removes what a killed save left behind.
  explicit CheckpointFolder(const std::filesystem::path& path);

  /// Saves, and when the new one is whole removes all but the last two and the one of `best_step`.
  /// Errors  ResourceError: disk full, quota, failing write; the older checkpoints are as they were.
  void save(const Checkpoint& checkpoint, std::optional<int64_t> best_step);

  /// The newest checkpoint whose every byte is as it was saved; a damaged one is named on stderr and passed over.
  /// Nothing if there is none. Errors: IoError when there are checkpoints but all are damaged.
  std::optional<Checkpoint> load_latest() const;
  /// Errors   IoError naming the file that is missing or damaged.
  Checkpoint load(int64_t step) const;

  /// Steps of all checkpoints, damaged ones too, ascending.
  std::vector<int64_t> steps() const;
  std::filesystem::path path_of(int64_t step) const { return path_ / ("step-" + std::to_string(step)); }
  const std::filesystem::path& path() const { return path_; }

 private:
  void remove(const std::filesystem::path& folder);
  void remove_all_but(int64_t newest, std::optional<int64_t> best_step);

  std::filesystem::path path_;
};

}  // namespace fovea::train
