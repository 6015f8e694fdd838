#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "fovea/io/json_file.h"

namespace fovea::train {

/// What is needed to say where a result came from, and to get it again.
struct RunManifest {
  uint64_t seed = 0;
  std::vector<std::string> command;            // argv
  std::vector<std::filesystem::path> data;     // every file that was learnt from
  std::vector<std::filesystem::path> weights;  // files that the run started from or left
};

/// runs/NAME: config.json, manifest.json, log.csv, validation.csv, timing.csv, TensorBoard events, checkpoints/,
/// metrics.json. Locked while the object lives, so that two trainings cannot share it; the lock goes with the process.
/// Folders are made with mode 0700, files with 0600.
/// Errors   IoError: cannot be made, or another process is training in it.
class RunFolder {
 public:
  explicit RunFolder(const std::filesystem::path& path);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }

  void write_config(const io::Json& config) const;
  /// Adds version, processor, instruction set, threads and SHA-256 of the binary and of every file. Reads all of them.
  void write_manifest(const RunManifest& manifest) const;
  void write_metrics(const io::Json& metrics) const;

 private:
  std::filesystem::path path_;
  int lock_ = -1;
};

/// Refuses to begin in a folder that holds a run, and to go on with another configuration than the run's own.
/// Errors   ArgumentError saying what to do.
void require_new_or_same_run(const std::filesystem::path& run, const io::Json& config, bool resume);

/// argv as one line that a shell takes back.
std::string shell_line(const std::vector<std::string>& command);

}  // namespace fovea::train
