#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace fovea::train {

/// A CSV file that grows row by row and can be cut back to where a checkpoint saw it. Numbers are written in the
/// shortest form that reads back to the same double, whatever the locale. Errors   IoError when it cannot be opened,
/// ResourceError when it cannot be written.
class CsvLog {
 public:
  /// Starts a new file, or keeps the first `keep_bytes` of the one that is there (fewer, with a warning, if it is
  /// shorter).
  CsvLog(const std::filesystem::path& path, std::vector<std::string> columns, uint64_t keep_bytes = 0);
  ~CsvLog();
  CsvLog(const CsvLog&) = delete;
  CsvLog& operator=(const CsvLog&) = delete;

  void add_row(const std::vector<double>& values);
  /// Flushes to the disk.
  void sync();
  uint64_t bytes() const { return bytes_; }

 private:
  void append(const std::string& text);

  std::filesystem::path path_;
  size_t columns_;
  int descriptor_ = -1;
  uint64_t bytes_ = 0;
};

/// The shortest decimal form that reads back to the same double; "nan", "inf".
std::string number_text(double value);

}  // namespace fovea::train
