#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace fovea::io {

/// A regular file opened for reading, or bytes in memory that stand for one, with its size known: what all readers stand on.
/// Reads either fill the whole destination or throw, so no caller can overlook a short file.
/// Errors   IoError: missing, a folder, no permission, a device or pipe, or shorter than asked.
class InputFile {
 public:
  explicit InputFile(const std::filesystem::path& path);
  /// `content` must live as long as this; `path` is what messages name.
  InputFile(const std::filesystem::path& path, std::span<const std::byte> content) : path_(path), size_(content.size()), content_(content) {}
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  uint64_t size() const { return size_; }
  /// Fills `to` from byte `offset` on.
  void read_at(uint64_t offset, std::span<std::byte> to) const;
  /// Reads as much as there is, at most to.size(); returns how much.
  size_t read_some_at(uint64_t offset, std::span<std::byte> to) const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;  // none: in memory
  uint64_t size_ = 0;
  std::span<const std::byte> content_;
};

/// The whole file as text, refused when larger than `max_bytes`.
std::string read_text(const std::filesystem::path& path, uint64_t max_bytes);

}  // namespace fovea::io
