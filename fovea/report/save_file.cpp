#include "fovea/report/save_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "fovea/core/error.h"

namespace fovea::report {
namespace {

/// Writes all of `content` and flushes it to the disk; the reason if that failed, else "".
std::string write_all(int file, std::string_view content) {
  while (!content.empty()) {
    const ssize_t n = ::write(file, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return std::strerror(errno);
    content.remove_prefix(static_cast<size_t>(n));
  }
  return ::fsync(file) == 0 ? "" : std::strerror(errno);
}

}  // namespace

void save_file(const std::filesystem::path& path, std::string_view content) {
  std::string temporary = path.string() + ".part-XXXXXX";
  const int file = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (file < 0) throw IoError(path, std::string("cannot be written: ") + std::strerror(errno));
  std::string problem = write_all(file, content);  // mode 0600: a report may show a patient
  if (::close(file) != 0 && problem.empty()) problem = std::strerror(errno);
  if (problem.empty() && ::rename(temporary.c_str(), path.c_str()) != 0) problem = std::strerror(errno);
  if (!problem.empty()) {
    ::unlink(temporary.c_str());
    throw IoError(path, "cannot be written: " + problem);
  }
}

}  // namespace fovea::report
