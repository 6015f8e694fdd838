#include "fovea/train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fovea/core/error.h"
#include "fovea/core/isa.h"
#include "fovea/core/version.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/input_file.h"
#include "fovea/io/sha256.h"

namespace fovea::train {

namespace fs = std::filesystem;

RunFolder::RunFolder(const fs::path& path) : path_(path) {
  const bool existed = fs::is_directory(path_);
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) throw IoError(path_, "cannot be made: " + error.message());
  if (!existed) ::chmod(path_.c_str(), 0700);
  const fs::path lock = path_ / ".lock";
  lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ < 0) throw IoError(lock, std::string("cannot be made: ") + std::strerror(errno));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    char owner[32] = {};
    const ssize_t n = ::pread(lock_, owner, sizeof owner - 1, 0);
    ::close(lock_);
    throw IoError(path_, std::string("is in use by another training") +
                             (n > 1 ? ", process " + std::string(owner, size_t(n - 1)) : "") +
                             "; wait for it or choose another run name");
  }
  const std::string owner = std::to_string(::getpid()) + "\n";
  if (::ftruncate(lock_, 0) != 0 || ::pwrite(lock_, owner.data(), owner.size(), 0) < 0) {
    // The process number only makes the message of a second training clearer.
  }
  io::remove_stale_temporaries(path_);
}

RunFolder::~RunFolder() { ::close(lock_); }

void require_new_or_same_run(const fs::path& run, const io::Json& config, bool resume) {
  const fs::path file = run / "config.json";
  if (!fs::exists(file)) return;
  if (!resume)
    throw ArgumentError("train: " + run.string() +
                        " holds a run already; add --resume to go on with it, or choose another --output");
  if (io::read_json(file) != config)
    throw ArgumentError("train: " + file.string() +
                        " differs from the configuration asked for; resume with the same one, or choose another --output");
}

void RunFolder::write_config(const io::Json& config) const { io::write_json(path_ / "config.json", config); }
void RunFolder::write_metrics(const io::Json& metrics) const { io::write_json(path_ / "metrics.json", metrics); }

void RunFolder::write_manifest(const RunManifest& manifest) const {
  const auto digests = [](const std::vector<fs::path>& files) {
    io::Json list = io::Json::array();
    for (const fs::path& file : files) {
      list.push_back(
          {{"path", file.string()}, {"bytes", io::InputFile(file).size()}, {"sha256", io::sha256_file(file)}});
    }
    return list;
  };
  const fs::path binary = fs::read_symlink("/proc/self/exe");
  io::write_json(path_ / "manifest.json", {{"command", shell_line(manifest.command)},
                                           {"seed", manifest.seed},
                                           {"fovea", fovea::kVersion},
                                           {"torch", TORCH_VERSION},
                                           {"cpu", cpu_model()},
                                           {"isa", name_of(chosen_isa())},
                                           {"threads", torch::get_num_threads()},
                                           {"binary", digests({binary})},
                                           {"data", digests(manifest.data)},
                                           {"weights", digests(manifest.weights)}});
}

std::string shell_line(const std::vector<std::string>& command) {
  std::string line;
  for (const std::string& word : command) {
    if (!line.empty()) line += ' ';
    if (!word.empty() && word.find_first_not_of(
                             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=.,:/@%") == word.npos) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += '\'';
  }
  return line;
}

}  // namespace fovea::train
