#pragma once
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace fovea::io {

/// A file that appears whole or not at all: bytes go to a hidden temporary in the same folder; commit() flushes it to
/// the disk, renames it over the target and flushes the folder. Without commit() the temporary is removed and an older
/// target stays as it was. A symbolic link as target is followed. New files get mode 0600 (they may hold patient data);
/// a replaced file keeps its mode. Temporaries that a killed process left for the same target are removed first.
/// Errors   IoError: the folder is missing, not writable, or the target is no regular file.
///          ResourceError: disk full, quota, or any other failing write, flush or rename.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// Makes the file appear. Call once, last.
  void commit();
  /// Bytes given to write() so far.
  uint64_t size() const { return size_; }

 private:
  void flush();
  [[noreturn]] void fail(const char* action, int error);

  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
  std::vector<char> buffer_;
};

/// Writes `content` as the whole file `path`.
void write_file(const std::filesystem::path& path, std::string_view content);

/// Removes what killed writers left in `folder`; files being written at this moment by any process stay. Returns how
/// many.
int remove_stale_temporaries(const std::filesystem::path& folder);

}  // namespace fovea::io
