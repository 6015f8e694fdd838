#include "fovea/io/csv.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <limits>
#include <set>
#include <span>

#include "fovea/core/error.h"
#include "fovea/io/input_file.h"
#include "fovea/io/json_file.h"

namespace fovea::io {

namespace {
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";  // of a file; a cell that begins with these bytes is quoted
constexpr size_t kMaxColumns = 10'000;
constexpr uint64_t kMaxHeadBytes = uint64_t{1} << 20;  // that names of columns are looked for in

// Reads rows one after the other and counts lines.
class CsvReader {
 public:
  CsvReader(std::string_view text, const std::filesystem::path& path) : text_(text), path_(path) {
    if (text_.starts_with(kByteOrderMark)) text_.remove_prefix(3);
  }

  /// False at the end. An empty line is a row of one empty cell.
  bool next(std::vector<std::string>& row) {
    row.clear();
    if (at_ >= text_.size()) return false;
    row_line_ = line_;
    for (;;) {
      row.push_back(at_ < text_.size() && text_[at_] == '"' ? quoted() : plain());
      if (at_ >= text_.size()) return true;
      const char end = text_[at_++];
      if (end == ',') continue;
      if (end == '\r' && at_ < text_.size() && text_[at_] == '\n') ++at_;
      ++line_;
      return true;
    }
  }
  /// The first row that is not empty: the names of the columns. False when there is none.
  bool names(std::vector<std::string>& row) {
    while (next(row))
      if (!is_empty(row)) return true;
    return false;
  }
  static bool is_empty(const std::vector<std::string>& row) { return row.size() == 1 && row[0].empty(); }
  int64_t row_line() const { return row_line_; }
  [[noreturn]] void fail(int64_t line, const std::string& problem) const {
    throw IoError(path_, "line " + std::to_string(line) + ": " + problem);
  }

 private:
  std::string plain() {
    const size_t end = std::min(text_.find_first_of(",\r\n", at_), text_.size());
    std::string cell(text_.substr(at_, end - at_));
    at_ = end;
    return cell;
  }
  std::string quoted() {
    std::string cell;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == '\n') ++line_;
      if (text_[at_] != '"') {
        cell += text_[at_];
      } else if (at_ + 1 < text_.size() && text_[at_ + 1] == '"') {
        cell += text_[++at_];
      } else {
        ++at_;
        if (at_ < text_.size() && std::string_view(",\r\n").find(text_[at_]) == std::string_view::npos)
          fail(line_, "text after a closing quote, expected a comma or the end of the line");
        return cell;
      }
    }
    fail(row_line_, "a quote is opened and not closed");
  }

  std::string_view text_;
  const std::filesystem::path& path_;
  size_t at_ = 0;
  int64_t line_ = 1, row_line_ = 1;
};
}  // namespace

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == text.npos && !text.starts_with(kByteOrderMark)) return text;
  std::string cell = "\"";
  for (const char c : text) cell += c == '"' ? std::string("\"\"") : std::string(1, c);
  return cell + "\"";
}

std::string csv_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

CsvTable parse_csv(std::string_view text, const std::filesystem::path& path) {
  CsvReader reader(text, path);
  if (const size_t at = invalid_utf8(text); at != text.npos)
    reader.fail(1 + std::count(text.begin(), text.begin() + std::ptrdiff_t(at), '\n'), "byte " + std::to_string(at) + " is not UTF-8; save the table as UTF-8");
  CsvTable table;
  table.path_ = path;
  std::vector<std::string> row;
  if (!reader.names(row)) throw IoError(path, "expected a line of column names, found nothing");
  if (row.size() > kMaxColumns) throw IoError(path, "has " + std::to_string(row.size()) + " columns, expected at most " + std::to_string(kMaxColumns));
  table.columns_ = row;
  std::set<std::string> names;
  for (const std::string& name : row)
    if (!names.insert(name).second) reader.fail(reader.row_line(), "two columns are called '" + name + "'");
  while (reader.next(row)) {
    if (CsvReader::is_empty(row) && table.columns_.size() > 1) continue;
    if (row.size() != table.columns_.size())
      reader.fail(reader.row_line(), "found " + std::to_string(row.size()) + " cells, expected " +
                                         std::to_string(table.columns_.size()) + " as in the first line");
    for (std::string& cell : row) table.cells_.push_back(std::move(cell));
    table.lines_.push_back(reader.row_line());
  }
  return table;
}

CsvTable read_csv(const std::filesystem::path& path) { return parse_csv(read_text(path, kMaxCsvBytes), path); }

std::vector<std::string> csv_columns(const std::filesystem::path& path) {
  std::error_code ignored;
  if (path.extension() != ".csv" || !std::filesystem::is_regular_file(path, ignored)) return {};
  try {
    const InputFile file(path);
    std::string head(std::min(file.size(), kMaxHeadBytes), '\0');
    file.read_at(0, std::as_writable_bytes(std::span(head)));
    CsvReader reader(head, path);
    std::vector<std::string> row;
    if (reader.names(row)) return row;
  } catch (const IoError&) {  // told by whoever reads the table
  }
  return {};
}

size_t CsvTable::column(std::string_view name) const {
  std::string known;
  for (size_t c = 0; c < columns_.size(); ++c) {
    if (columns_[c] == name) return c;
    known += (c ? ", " : "") + columns_[c];
  }
  throw IoError(path_, "no column '" + std::string(name) + "'; there are " + known);
}

std::vector<double> CsvTable::numbers(size_t column) const {
  std::vector<double> out;
  out.reserve(rows());
  for (size_t r = 0; r < rows(); ++r) {
    const std::string& text = cell(r, column);
    double value = std::numeric_limits<double>::quiet_NaN();
    if (!text.empty() && text != "NA") {
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc() || end != text.data() + text.size())
        throw IoError(path_, "line " + std::to_string(lines_[r]) + ", column " + columns_[column] + ": '" +
                                 text.substr(0, 40) + "' is no number");
    }
    out.push_back(value);
  }
  return out;
}

}  // namespace fovea::io
