#include "fovea/train/csv_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>

#include "fovea/core/error.h"
#include "fovea/core/progress.h"

namespace fovea::train {

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";  // without the sign that to_chars shows
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

CsvLog::CsvLog(const std::filesystem::path& path, std::vector<std::string> columns, uint64_t keep_bytes)
    : path_(path), columns_(columns.size()) {
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  struct stat status {};
  if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0)
    throw IoError(path, std::string("cannot open for writing: ") + std::strerror(errno));
  if (uint64_t(status.st_size) < keep_bytes) {
    print_line("warning: " + path.string() + ": has " + std::to_string(status.st_size) + " bytes, the checkpoint saw " +
               std::to_string(keep_bytes) + "; rows are missing");
  }
  bytes_ = std::min(keep_bytes, uint64_t(status.st_size));
  if (::ftruncate(descriptor_, off_t(bytes_)) != 0 || ::lseek(descriptor_, 0, SEEK_END) < 0) {
    throw ResourceError(path.string() + ": cannot cut back: " + std::strerror(errno));
  }
  if (bytes_ > 0) return;
  std::string header;
  for (const std::string& name : columns) header += (header.empty() ? "" : ",") + name;
  append(header + "\n");
}

CsvLog::~CsvLog() { ::close(descriptor_); }

void CsvLog::add_row(const std::vector<double>& values) {
  FOVEA_CHECK(values.size() == columns_, "a row of " + std::to_string(values.size()) + " values for " + path_.string());
  std::string row;
  for (const double value : values) row += (row.empty() ? "" : ",") + number_text(value);
  append(row + "\n");
}

void CsvLog::append(const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(descriptor_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      throw ResourceError(path_.string() + ": cannot write: " + std::strerror(n < 0 ? errno : EIO) +
                          "; make room and resume the run");
    done += size_t(n), bytes_ += uint64_t(n);
  }
}

void CsvLog::sync() {
  if (::fsync(descriptor_) != 0 && errno != EINVAL)
    throw ResourceError(path_.string() + ": cannot flush: " + std::strerror(errno));
}

}  // namespace fovea::train
