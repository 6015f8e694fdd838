#include "fovea/io/json_file.h"

#include <optional>
#include <unordered_set>
#include <vector>

#include "fovea/core/error.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/input_file.h"

namespace fovea::io {

namespace {

// Counts what the parser has read, so that a complaint about a key can say where it is.
struct CountingIterator {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* at;
  const char** furthest;

  reference operator*() const { return *at; }
  CountingIterator& operator++() {
    *furthest = ++at;
    return *this;
  }
  bool operator==(const CountingIterator& other) const { return at == other.at; }
  bool operator!=(const CountingIterator& other) const { return at != other.at; }
};

std::string line_and_column(std::string_view text, size_t offset) {
  offset = std::min(offset, text.size());
  size_t line = 1, column = 1;
  for (size_t i = 0; i < offset; ++i) {
    if (text[i] == '\n')
      ++line, column = 1;
    else if ((text[i] & 0xC0) != 0x80)
      ++column;  // continuation bytes belong to the character before
  }
  return "line " + std::to_string(line) + ", column " + std::to_string(column);
}

// Builds the document, and stops at a repeated key or at too deep nesting. Complaints go to `problem`.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Builder(std::string_view text, const char** furthest) : text_(text), furthest_(furthest) {}
  Json root;
  std::string problem;

  bool null() override { return put(nullptr); }
  bool boolean(bool v) override { return put(v); }
  bool number_integer(number_integer_t v) override { return put(v); }
  bool number_unsigned(number_unsigned_t v) override { return put(v); }
  bool number_float(number_float_t v, const string_t&) override { return put(v); }
  bool string(string_t& v) override { return put(std::move(v)); }
  bool binary(binary_t&) override { return complain("binary values are not JSON"); }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (!open_.back().keys.insert(name).second) return complain("key \"" + name + "\" is there twice");
    open_.back().key = name;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& e) override {
    // "[json.exception.parse_error.101] parse error at line 2, column 5: syntax error while parsing ...": keep the end.
    std::string what = e.what();
    if (const size_t start = what.find(": "); start != what.npos && what.find(" at line ") < start)
      what = what.substr(start + 2);
    if (what.size() > 200) what = what.substr(0, 200) + "...";
    problem = line_and_column(text_, position > 0 ? position - 1 : 0) + ": " + what;
    return false;
  }

 private:
  struct Level {
    Json value;
    std::string key;                       // of the value being parsed, in an object
    std::unordered_set<std::string> keys;  // seen so far; asking the object itself would take time linear in its size
  };

  bool complain(const std::string& what) {
    problem = line_and_column(text_, size_t(*furthest_ - text_.data())) + ": " + what;
    return false;
  }

  bool open(Json&& container) {
    if (int(open_.size()) == kMaxJsonDepth)
      return complain("nested deeper than " + std::to_string(kMaxJsonDepth) + " levels");
    open_.push_back({std::move(container), {}, {}});
    return true;
  }

  bool close() {
    Json done = std::move(open_.back().value);
    open_.pop_back();
    return put(std::move(done));
  }

  bool put(Json&& value) {
    if (open_.empty()) {
      root = std::move(value);
    } else if (open_.back().value.is_array()) {
      open_.back().value.get_ref<Json::array_t&>().push_back(std::move(value));
    } else {
      // Appends without the search for an equal key, which key() has done.
      std::vector<std::pair<const std::string, Json>>& members = open_.back().value.get_ref<Json::object_t&>();
      members.emplace_back(std::move(open_.back().key), std::move(value));
    }
    return true;
  }

  std::string_view text_;
  const char** furthest_;
  std::vector<Level> open_;
};

// Root of the document, or nothing and a complaint that begins with line and column.
std::optional<Json> parse(std::string_view text, std::string& problem) {
  if (const size_t bad = invalid_utf8(text); bad != text.npos) {
    problem = line_and_column(text, bad) + ": byte " + std::to_string(bad) + " is not UTF-8";
    return std::nullopt;
  }
  const char* furthest = text.data();
  Builder builder(text, &furthest);
  const bool good =
      Json::sax_parse(CountingIterator{text.data(), &furthest}, CountingIterator{text.data() + text.size(), &furthest},
                      &builder, Json::input_format_t::json, /*strict=*/true, /*ignore_comments=*/true);
  if (good) return std::move(builder.root);
  problem = builder.problem;
  return std::nullopt;
}

}  // namespace

size_t invalid_utf8(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  for (size_t i = 0; i < text.size();) {
    const unsigned first = byte(i);
    // RFC 3629: length from the first byte; the second byte's range excludes overlong forms, surrogates and > U+10FFFF.
    size_t length = 0;
    unsigned low = 0x80, high = 0xBF;
    if (first < 0x80)
      length = 1;
    else if (first >= 0xC2 && first <= 0xDF)
      length = 2;
    else if (first >= 0xE0 && first <= 0xEF)
      length = 3, low = first == 0xE0 ? 0xA0 : 0x80, high = first == 0xED ? 0x9F : 0xBF;
    else if (first >= 0xF0 && first <= 0xF4)
      length = 4, low = first == 0xF0 ? 0x90 : 0x80, high = first == 0xF4 ? 0x8F : 0xBF;
    else
      return i;
    for (size_t k = 1; k < length; ++k, low = 0x80, high = 0xBF)
      if (byte(i + k) < low || byte(i + k) > high) return i;
    i += length;
  }
  return text.npos;
}

Json parse_json(std::string_view text, const std::string& where) {
  std::string problem;
  if (auto root = parse(text, problem)) return std::move(*root);
  throw ArgumentError(where + ": " + problem);
}

Json read_json(const std::filesystem::path& path) {
  std::string problem;
  if (auto root = parse(read_text(path, kMaxJsonBytes), problem)) return std::move(*root);
  throw IoError(path, problem);
}

void write_json(const std::filesystem::path& path, const Json& json) {
  write_file(path, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace fovea::io
