#include "fovea/io/alignment.h"

#include <algorithm>
#include <array>
#include <memory>
#include <unordered_map>

#include "fovea/core/error.h"
#include "fovea/io/byte_source.h"

namespace fovea::io {

namespace fs = std::filesystem;

namespace {
constexpr int64_t kMaxRows = 1'000'000, kMaxColumns = 100'000;
constexpr size_t kMaxLine = 4'000'000;  // a sequence with all its insertions on one line
constexpr uint8_t kNoResidue = 255;

// Lines of a text, plain or gzip, without their ends.
class LineReader {
 public:
  LineReader(const InputFile& file, uint64_t max_bytes) : file_(file), buffer_(std::min<uint64_t>(kPiece, file.size() + 1)), max_bytes_(max_bytes) {
    std::array<std::byte, 2> start{};
    const bool gzip = file_.read_some_at(0, start) == 2 && start[0] == std::byte{0x1f} && start[1] == std::byte{0x8b};
    if (gzip)
      source_ = std::make_unique<GzipSource>(file_);
    else
      source_ = std::make_unique<RawSource>(file_);
  }
  bool next(std::string& line) {
    line.clear();
    bool any = false;
    while (true) {
      if (at_ == have_) {
        have_ = source_->read_some(buffer_), at_ = 0, read_ += have_;
        if (read_ > max_bytes_) fail("is longer than " + std::to_string(max_bytes_) + " bytes of text");
        if (have_ == 0) break;
      }
      any = true;
      const auto begin = buffer_.begin() + std::ptrdiff_t(at_), end = buffer_.begin() + std::ptrdiff_t(have_);
      const auto newline = std::find(begin, end, std::byte('\n'));
      line.append(reinterpret_cast<const char*>(&*begin), size_t(newline - begin));
      at_ += size_t(newline - begin);
      if (line.size() > kMaxLine) fail("line " + std::to_string(number_ + 1) + " is longer than " + std::to_string(kMaxLine) + " characters");
      if (at_ < have_) {
        ++at_;
        break;
      }
    }
    if (!any) return false;
    ++number_;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (const size_t nul = line.find('\0'); nul != line.npos) fail("line " + std::to_string(number_) + ", column " + std::to_string(nul + 1) + " is a NUL byte, expected text");
    return true;
  }
  int64_t number() const { return number_; }
  const fs::path& path() const { return file_.path(); }
  [[noreturn]] void fail(const std::string& problem) const { throw IoError(file_.path(), problem); }

 private:
  static constexpr size_t kPiece = 1 << 16;
  const InputFile& file_;
  std::unique_ptr<ByteSource> source_;
  std::vector<std::byte> buffer_;
  size_t at_ = 0, have_ = 0;
  uint64_t read_ = 0, max_bytes_;
  int64_t number_ = 0;
};

uint8_t code_of(char letter) {
  if (const size_t at = kResidues.substr(0, 21).find(letter); at != kResidues.npos) return uint8_t(at);
  if (letter == '.' || letter == '~' || letter == '_') return kGap;
  return letter >= 'A' && letter <= 'Z' ? kUnknownResidue : kNoResidue;
}

std::string first_word(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == text.npos) return "";
  return std::string(text.substr(begin, text.find_first_of(" \t", begin) - begin));
}

std::string named(int64_t row, const std::string& name) { return "sequence " + std::to_string(row + 1) + " (\"" + name.substr(0, 60) + "\")"; }

// Sequences one after the other, letters by their codes; insertions (lower case and '.') are marked, since only the whole
// file tells whether they are any.
class FastaReader {
 public:
  explicit FastaReader(LineReader& lines) : lines_(lines), is_a3m_(lines.path().filename().string().find(".a3m") != std::string::npos) {}

  Alignment read(std::string line) {
    do {
      if (line.starts_with('>')) {
        end_row();
        names_.push_back(first_word(std::string_view(line).substr(1)));
        if (int64_t(names_.size()) > kMaxRows) lines_.fail("holds more than " + std::to_string(kMaxRows) + " sequences");
      } else if (!line.starts_with(';')) {
        add(line);
      }
    } while (lines_.next(line));
    end_row();
    return finish();
  }

 private:
  void add(const std::string& line) {
    for (size_t i = 0; i < line.size(); ++i) {
      const char letter = line[i];
      if (letter == ' ' || letter == '\t' || (letter == '*' && i + 1 == line.size())) continue;
      const bool lower = letter >= 'a' && letter <= 'z', insertion = lower || letter == '.';
      const uint8_t code = code_of(lower ? char(letter - 'a' + 'A') : letter);
      if (code == kNoResidue) lines_.fail("line " + std::to_string(lines_.number()) + ", column " + std::to_string(i + 1) + ": '" + letter + "' is no residue");
      match_ += !insertion;
      ++length_;
      residues_.push_back(code), inserted_.push_back(insertion);
    }
    if (length_ > 40 * kMaxColumns) lines_.fail(named(int64_t(names_.size()) - 1, names_.back()) + " is longer than " + std::to_string(40 * kMaxColumns) + " residues");
  }

  void end_row() {
    if (names_.empty()) return;
    if (length_ == 0) lines_.fail(named(int64_t(names_.size()) - 1, names_.back()) + " is empty");
    lengths_.push_back(length_), matches_.push_back(match_);
    length_ = match_ = 0;
    if (is_a3m_ || lengths_.size() == 1) return;
    // Memory must not follow a file that is no alignment at all.
    if (lengths_.back() != lengths_[0] && matches_.back() != matches_[0])
      lines_.fail(named(int64_t(lengths_.size()) - 1, names_[lengths_.size() - 1]) + " has " + std::to_string(lengths_.back()) + " columns, expected " + std::to_string(lengths_[0]) + " as the first");
  }

  Alignment finish() {
    Alignment a;
    const bool same_lengths = std::all_of(lengths_.begin(), lengths_.end(), [&](int64_t n) { return n == lengths_[0]; });
    const bool a3m = is_a3m_ || !same_lengths;
    a.format = a3m ? "a3m" : "fasta";
    const auto& counted = a3m ? matches_ : lengths_;
    a.columns = counted[0];
    for (size_t n = 0; n < counted.size(); ++n)
      if (counted[n] != a.columns)
        lines_.fail(named(int64_t(n), names_[n]) + " has " + std::to_string(counted[n]) + (a3m ? " columns without insertions" : " columns") + ", expected " + std::to_string(a.columns) + " as the first");
    if (a.columns < 1 || a.columns > kMaxColumns) lines_.fail("has " + std::to_string(a.columns) + " columns, expected 1 to " + std::to_string(kMaxColumns));
    if (a3m) {
      size_t kept = 0;
      for (size_t i = 0; i < residues_.size(); ++i)
        if (!inserted_[i]) residues_[kept++] = residues_[i];
      if (kept < residues_.size()) a.notes.push_back(std::to_string(residues_.size() - kept) + " inserted residues are left out");
      residues_.resize(kept);
    }
    a.names = std::move(names_), a.residues = std::move(residues_);
    return a;
  }

  LineReader& lines_;
  const bool is_a3m_;
  std::vector<std::string> names_;
  std::vector<uint8_t> residues_;
  std::vector<bool> inserted_;
  std::vector<int64_t> lengths_, matches_;
  int64_t length_ = 0, match_ = 0;
};

// Rows that grow block by block.
class BlockReader {
 public:
  BlockReader(LineReader& lines, const char* format) : lines_(lines), format_(format) {}

  // "name  residues", and in Clustal perhaps a running count.
  void add(const std::string& line) {
    const size_t begin = line.find_first_not_of(" \t"), name_end = line.find_first_of(" \t", begin);
    const size_t at = name_end == line.npos ? line.npos : line.find_first_not_of(" \t", name_end);
    if (at == line.npos) lines_.fail("line " + std::to_string(lines_.number()) + ": a name without residues");
    const std::string name = line.substr(begin, name_end - begin);
    const auto [found, fresh] = row_of_.try_emplace(name, rows_.size());
    if (fresh) {
      if (int64_t(rows_.size()) >= kMaxRows) lines_.fail("holds more than " + std::to_string(kMaxRows) + " sequences");
      names_.push_back(name), rows_.emplace_back();
    }
    auto& row = rows_[found->second];
    for (size_t i = at; i < line.size() && line[i] != ' ' && line[i] != '\t'; ++i) {
      const char letter = line[i];
      const uint8_t code = code_of(letter >= 'a' && letter <= 'z' ? char(letter - 'a' + 'A') : letter);
      if (code == kNoResidue) lines_.fail("line " + std::to_string(lines_.number()) + ", column " + std::to_string(i + 1) + ": '" + letter + "' is no residue");
      row.push_back(code);
    }
    if (int64_t(row.size()) > kMaxColumns) lines_.fail(named(int64_t(found->second), name) + " has more than " + std::to_string(kMaxColumns) + " columns");
  }

  Alignment finish() {
    if (rows_.empty()) lines_.fail("holds no sequence");
    Alignment a;
    a.format = format_, a.columns = int64_t(rows_[0].size());
    for (size_t n = 0; n < rows_.size(); ++n) {
      if (int64_t(rows_[n].size()) != a.columns)
        lines_.fail(named(int64_t(n), names_[n]) + " has " + std::to_string(rows_[n].size()) + " columns, expected " + std::to_string(a.columns) + " as the first");
      a.residues.insert(a.residues.end(), rows_[n].begin(), rows_[n].end());
      rows_[n] = {};
    }
    a.names = std::move(names_);
    return a;
  }

 private:
  LineReader& lines_;
  const char* format_;
  std::unordered_map<std::string, size_t> row_of_;
  std::vector<std::string> names_;
  std::vector<std::vector<uint8_t>> rows_;
};

Alignment read_stockholm(LineReader& lines) {
  BlockReader blocks(lines, "stockholm");
  std::string line;
  while (true) {
    if (!lines.next(line)) lines.fail("ends without \"//\"; the file is truncated");
    if (line.starts_with("//")) break;
    if (!line.starts_with('#') && line.find_first_not_of(" \t") != line.npos) blocks.add(line);
  }
  Alignment a = blocks.finish();
  while (lines.next(line))
    if (line.starts_with("# STOCKHOLM")) {
      a.notes.push_back("a second alignment follows and is not read");
      break;
    }
  return a;
}

Alignment read_clustal(LineReader& lines) {
  BlockReader blocks(lines, "clustal");
  std::string line;
  while (lines.next(line))
    if (!line.empty() && line[0] != ' ' && line[0] != '\t') blocks.add(line);
  return blocks.finish();
}
}  // namespace

Alignment read_alignment(const InputFile& file, uint64_t max_bytes) {
  const fs::path& path = file.path();
  LineReader lines(file, max_bytes);
  std::string line;
  do {
    if (!lines.next(line)) throw IoError(path, "is empty, expected an alignment (FASTA, A3M, Stockholm or Clustal)");
  } while (line.find_first_not_of(" \t") == line.npos || line.starts_with(';'));
  if (line.starts_with("# STOCKHOLM 1.")) return read_stockholm(lines);
  for (const char* program : {"CLUSTAL", "MUSCLE", "PROBCONS"})
    if (line.starts_with(program)) return read_clustal(lines);
  if (line.starts_with('>') || line.starts_with("#A3M#")) {
    if (line.starts_with('#') && !lines.next(line)) throw IoError(path, "is empty after its first line");
    if (line.starts_with('>')) return FastaReader(lines).read(line);
  }
  throw IoError(path, "begins with \"" + line.substr(0, 20) + "\", expected an alignment: '>' (FASTA, A3M), \"# STOCKHOLM 1.0\" or \"CLUSTAL\"");
}

Alignment read_alignment(const fs::path& path, uint64_t max_bytes) { return read_alignment(InputFile(path), max_bytes); }

}  // namespace fovea::io
