#include "fovea/io/atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "fovea/core/error.h"

namespace fovea::io {

namespace fs = std::filesystem;

namespace {
constexpr std::string_view kSuffix = ".partial";
constexpr size_t kBufferBytes = size_t{1} << 18;

std::string reason(int error) { return std::strerror(error); }

// Part of the temporary's name that belongs to the target. Cut so that long file names stay below the limit of 255.
std::string prefix_for(const fs::path& target) { return "." + target.filename().string().substr(0, 200) + "."; }

// A living writer holds a lock on its temporary; the lock of a killed one is gone.
int remove_stale(const fs::path& folder, std::string_view prefix) {
  int removed = 0;
  std::error_code ignored;
  for (auto entry = fs::directory_iterator(folder, ignored); !ignored && entry != fs::directory_iterator();
       entry.increment(ignored)) {
    const std::string name = entry->path().filename().string();
    if (name.front() != '.' || !name.starts_with(prefix) || !name.ends_with(kSuffix)) continue;
    const int descriptor = ::open(entry->path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (descriptor < 0) continue;
    if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0 && ::unlink(entry->path().c_str()) == 0) ++removed;
    ::close(descriptor);
  }
  return removed;
}
}  // namespace

AtomicFile::AtomicFile(const fs::path& path) : path_(path) {
  static std::atomic<unsigned> counter{0};
  std::error_code error;
  if (path_.filename().empty()) throw IoError(path, "is a folder, expected a file name to write");
  if (fs::is_symlink(path_, error)) path_ = fs::weakly_canonical(path_, error);
  mode_t mode = 0600;
  struct stat old {};
  if (::stat(path_.c_str(), &old) == 0) {
    // Renaming over a device or a pipe would destroy it.
    if (!S_ISREG(old.st_mode)) throw IoError(path, "is not a regular file; choose another name to write");
    mode = old.st_mode & 0777;
  }
  fs::path folder = path_.parent_path();
  if (folder.empty()) folder = ".";
  const std::string prefix = prefix_for(path_);
  remove_stale(folder, prefix);
  while (true) {
    temporary_ =
        folder / (prefix + std::to_string(::getpid()) + "-" + std::to_string(counter++) + std::string(kSuffix));
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (descriptor_ < 0) {
      const int code = errno;
      if (code == EEXIST) continue;
      temporary_.clear();
      if (code == ENOENT)
        throw IoError(path, "cannot write: the folder " + folder.string() + " does not exist; create it first");
      if (code == ENOSPC || code == EDQUOT || code == EMFILE || code == ENFILE || code == ENOMEM || code == EIO)
        fail("create", code);
      throw IoError(path, "cannot write: " + reason(code));
    }
    // Another process may take the unlocked newborn for a dead one and remove it: then start again.
    struct stat now {};
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0 && ::fstat(descriptor_, &now) == 0 && now.st_nlink > 0) break;
    ::close(descriptor_);
  }
  buffer_.reserve(kBufferBytes);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::fail(const char* action, int error) {
  const std::string line =
      path_.string() + ": cannot " + action + " after " + std::to_string(size_) + " bytes: " + reason(error);
  if (descriptor_ >= 0) ::close(descriptor_), descriptor_ = -1;
  if (!temporary_.empty()) ::unlink(temporary_.c_str()), temporary_.clear();
  throw ResourceError(line + "; nothing was left behind");
}

void AtomicFile::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t n = ::write(descriptor_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail("write", n < 0 ? errno : EIO);
    done += size_t(n);
  }
  buffer_.clear();
}

void AtomicFile::write(const void* data, size_t bytes) {
  FOVEA_CHECK(descriptor_ >= 0, "write to a committed or failed file " + path_.string());
  const char* from = static_cast<const char*>(data);
  size_ += bytes;
  while (bytes > 0) {
    const size_t n = std::min(bytes, kBufferBytes - buffer_.size());
    buffer_.insert(buffer_.end(), from, from + n);
    from += n, bytes -= n;
    if (buffer_.size() == kBufferBytes) flush();
  }
}

void AtomicFile::commit() {
  FOVEA_CHECK(descriptor_ >= 0, "second commit of " + path_.string());
  flush();
  if (::fsync(descriptor_) != 0) fail("flush", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename the finished file", errno);
  temporary_.clear();
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0) fail("close", errno);
  // Without this the new name may be lost with the power. File systems that cannot flush a folder (EINVAL) are left
  // alone.
  fs::path folder = path_.parent_path();
  const int folder_descriptor = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_descriptor < 0) return;
  const int error = ::fsync(folder_descriptor) == 0 ? 0 : errno;
  ::close(folder_descriptor);
  if (error != 0 && error != EINVAL && error != EROFS) fail("flush the folder", error);
}

void write_file(const fs::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

int remove_stale_temporaries(const fs::path& folder) { return remove_stale(folder, "."); }

}  // namespace fovea::io
