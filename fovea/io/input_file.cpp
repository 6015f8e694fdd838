#include "fovea/io/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "fovea/core/error.h"

namespace fovea::io {

InputFile::InputFile(const std::filesystem::path& path) : path_(path) {
  // O_NONBLOCK: opening a pipe by mistake must not wait for a writer; it changes nothing for regular files.
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0)
    throw IoError(path, errno == ENOENT ? "no such file" : std::string("cannot open: ") + std::strerror(errno));
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor_);
    throw IoError(path, S_ISDIR(status.st_mode) ? "is a folder, expected a file" : "is not a regular file");
  }
  size_ = uint64_t(status.st_size);
}

InputFile::~InputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

size_t InputFile::read_some_at(uint64_t offset, std::span<std::byte> to) const {
  if (descriptor_ < 0) {
    const auto from = content_.subspan(std::min<uint64_t>(offset, content_.size()));
    const size_t n = std::min(from.size(), to.size());
    std::copy_n(from.begin(), n, to.begin());
    return n;
  }
  size_t done = 0;
  while (done < to.size()) {
    const size_t ask = std::min(to.size() - done, size_t{1} << 30);
    const ssize_t n = ::pread(descriptor_, to.data() + done, ask, off_t(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      throw IoError(path_, "cannot read at byte " + std::to_string(offset + done) + ": " + std::strerror(errno));
    if (n == 0) break;
    done += size_t(n);
  }
  return done;
}

void InputFile::read_at(uint64_t offset, std::span<std::byte> to) const {
  const size_t n = read_some_at(offset, to);
  if (n != to.size())
    throw IoError(path_, "ends at byte " + std::to_string(offset + n) + ", expected " + std::to_string(to.size()) +
                             " bytes from byte " + std::to_string(offset) + " on; the file is truncated");
}

std::string read_text(const std::filesystem::path& path, uint64_t max_bytes) {
  const InputFile file(path);
  if (file.size() > max_bytes)
    throw IoError(path, "has " + std::to_string(file.size()) + " bytes, expected at most " + std::to_string(max_bytes) +
                            " for a text file");
  std::string text(file.size(), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace fovea::io
