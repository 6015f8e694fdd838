#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace fovea::io {

/// A table read from comma-separated values: a line of column names, then rows of as many cells.
class CsvTable {
 public:
  const std::vector<std::string>& columns() const { return columns_; }
  size_t rows() const { return columns_.empty() ? 0 : cells_.size() / columns_.size(); }
  const std::string& cell(size_t row, size_t column) const { return cells_[row * columns_.size() + column]; }
  /// Place of a column. Errors: IoError naming the columns that there are.
  size_t column(std::string_view name) const;
  /// A column as numbers; an empty cell, NA or NaN is NaN. Errors: IoError naming line, column and cell.
  std::vector<double> numbers(size_t column) const;

 private:
  friend CsvTable parse_csv(std::string_view text, const std::filesystem::path& path);
  std::filesystem::path path_;
  std::vector<std::string> columns_, cells_;
  std::vector<int64_t> lines_;  // of each row, 1-based
};

inline constexpr uint64_t kMaxCsvBytes = uint64_t{1} << 30;

/// Text as one cell: in double quotes where it holds a comma, a quote or a line end, or begins with a byte order mark.
std::string csv_cell(const std::string& text);

/// A number as one cell, with nine digits: a float reads back as itself.
std::string csv_number(double value);

/// RFC 4180: cells separated by commas, in double quotes where they hold a comma, a quote (doubled) or a line end. A
/// byte order mark and empty lines are passed over. `path` stands in messages only.
/// Errors   IoError with the line: no header, two columns of one name, a row of another length, an unclosed quote, bytes
///          that are not UTF-8; more than 10,000 columns.
CsvTable parse_csv(std::string_view text, const std::filesystem::path& path);

/// The same from a file of at most 1 GiB. Errors: IoError.
CsvTable read_csv(const std::filesystem::path& path);

/// The column names of a .csv file, to tell what kind of table it is; none when it is no such file or its names cannot be
/// read. Reads at most 1 MiB, whatever follows the names.
std::vector<std::string> csv_columns(const std::filesystem::path& path);

}  // namespace fovea::io
