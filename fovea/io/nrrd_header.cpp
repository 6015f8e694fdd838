#include "fovea/io/nrrd_header.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>

#include "fovea/core/error.h"

namespace fovea::io {

namespace {

constexpr size_t kMaxLine = 65536;

// Every field of the format; those that came later under a second spelling are stored under the first.
constexpr std::array<std::pair<std::string_view, std::string_view>, 42> kFields{{
    {"dimension", "dimension"},
    {"type", "type"},
    {"block size", "block size"},
    {"blocksize", "block size"},
    {"encoding", "encoding"},
    {"endian", "endian"},
    {"content", "content"},
    {"min", "min"},
    {"max", "max"},
    {"old min", "old min"},
    {"oldmin", "old min"},
    {"old max", "old max"},
    {"oldmax", "old max"},
    {"data file", "data file"},
    {"datafile", "data file"},
    {"line skip", "line skip"},
    {"lineskip", "line skip"},
    {"byte skip", "byte skip"},
    {"byteskip", "byte skip"},
    {"number", "number"},
    {"sample units", "sample units"},
    {"sampleunits", "sample units"},
    {"sizes", "sizes"},
    {"spacings", "spacings"},
    {"thicknesses", "thicknesses"},
    {"axis mins", "axis mins"},
    {"axismins", "axis mins"},
    {"axis maxs", "axis maxs"},
    {"axismaxs", "axis maxs"},
    {"centers", "centers"},
    {"centerings", "centers"},
    {"labels", "labels"},
    {"units", "units"},
    {"kinds", "kinds"},
    {"space", "space"},
    {"space dimension", "space dimension"},
    {"space units", "space units"},
    {"space origin", "space origin"},
    {"space directions", "space directions"},
    {"measurement frame", "measurement frame"},
    {"axis min", "axis mins"},
    {"axis max", "axis maxs"},
}};

constexpr std::array<std::pair<std::string_view, DType>, 40> kTypes{{
    {"signed char", DType::kI8},
    {"int8", DType::kI8},
    {"int8_t", DType::kI8},
    {"uchar", DType::kU8},
    {"unsigned char", DType::kU8},
    {"uint8", DType::kU8},
    {"uint8_t", DType::kU8},
    {"short", DType::kI16},
    {"short int", DType::kI16},
    {"signed short", DType::kI16},
    {"signed short int", DType::kI16},
    {"int16", DType::kI16},
    {"int16_t", DType::kI16},
    {"ushort", DType::kU16},
    {"unsigned short", DType::kU16},
    {"unsigned short int", DType::kU16},
    {"uint16", DType::kU16},
    {"uint16_t", DType::kU16},
    {"int", DType::kI32},
    {"signed int", DType::kI32},
    {"int32", DType::kI32},
    {"int32_t", DType::kI32},
    {"uint", DType::kU32},
    {"unsigned int", DType::kU32},
    {"uint32", DType::kU32},
    {"uint32_t", DType::kU32},
    {"longlong", DType::kI64},
    {"long long", DType::kI64},
    {"long long int", DType::kI64},
    {"signed long long", DType::kI64},
    {"signed long long int", DType::kI64},
    {"int64", DType::kI64},
    {"int64_t", DType::kI64},
    {"ulonglong", DType::kU64},
    {"unsigned long long", DType::kU64},
    {"unsigned long long int", DType::kU64},
    {"uint64", DType::kU64},
    {"uint64_t", DType::kU64},
    {"float", DType::kF32},
    {"double", DType::kF64},
}};

std::string_view trim(std::string_view s) {
  const size_t first = s.find_first_not_of(" \t\r");
  return first == s.npos ? std::string_view{} : s.substr(first, s.find_last_not_of(" \t\r") - first + 1);
}

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
  return out;
}

std::vector<std::string_view> words(std::string_view s) {
  std::vector<std::string_view> out;
  while (!(s = trim(s)).empty()) {
    const size_t end = std::min(s.find_first_of(" \t"), s.size());
    out.push_back(s.substr(0, end)), s.remove_prefix(end);
  }
  return out;
}

template <class T>
std::optional<T> parse_number(std::string_view s) {
  if (s.starts_with('+')) s.remove_prefix(1);
  T value{};
  const auto result = std::from_chars(s.data(), s.data() + s.size(), value);
  if (result.ec != std::errc() || result.ptr != s.data() + s.size() || s.empty()) return std::nullopt;
  if constexpr (std::is_floating_point_v<T>)
    if (!std::isfinite(value)) return std::nullopt;
  return value;
}

// Errors quote at most this much of a file, and nothing behind what separates lines and keys: where a damaged line end glues
// the next line to a value, that line may name a patient.
std::string quote(std::string_view s) {
  std::string out = "\"";
  for (const char c : s.substr(0, std::min<size_t>(60, s.find_first_of("#:=^")))) out += c >= 32 && c < 127 ? c : '?';
  return out + (s.size() > 60 ? "...\"" : "\"");
}

class Parser {
 public:
  Parser(const std::filesystem::path& path, std::string_view text) : path_(path), text_(text) {}

  NrrdHeader parse() {
    split_lines();
    read_type_and_encoding();
    read_geometry();
    return std::move(h_);
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const { throw IoError(path_, problem); }
  [[noreturn]] void fail_field(const std::string& field, const std::string& expected) const {
    fail("field \"" + field + "\" is " + quote(text_of(field)) + ", expected " + expected);
  }
  bool has(const std::string& field) const { return h_.fields.contains(field); }
  std::string_view text_of(const std::string& field) const {
    const auto found = h_.fields.find(field);
    return found == h_.fields.end() ? std::string_view{} : found->second;
  }
  std::string_view required(const std::string& field) const {
    if (!has(field)) fail("the NRRD header lacks the field \"" + field + "\"");
    return text_of(field);
  }

  void split_lines() {
    size_t number = 0;
    for (std::string_view rest = text_; !rest.empty();) {
      const size_t end = std::min(rest.find('\n'), rest.size());
      std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      ++number;
      const std::string where = "line " + std::to_string(number);
      if (line.size() > kMaxLine)
        fail(where + " has " + std::to_string(line.size()) + " bytes, expected at most " + std::to_string(kMaxLine));
      if (line.find('\0') != line.npos) fail(where + " holds a zero byte");
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (number == 1) {
        if (line.size() != 8 || !line.starts_with("NRRD000") || line[7] < '1' || line[7] > '5')
          fail("begins with " + quote(line.substr(0, 8)) + ", expected NRRD0001 to NRRD0005");
        continue;
      }
      if (line.empty() || line[0] == '#') continue;
      const size_t colon = line.find(": "), equals = line.find(":=");
      if (equals != line.npos && (colon == line.npos || equals < colon)) {
        h_.key_values[std::string(line.substr(0, equals))] = std::string(line.substr(equals + 2));
        continue;
      }
      const size_t split = colon != line.npos ? colon : line.ends_with(':') ? line.size() - 1 : line.npos;
      // A damaged line may hold what names a patient: only words close to those of the format are repeated.
      if (split == line.npos) fail(where + " has no colon, expected \"field: value\"");
      const std::string name = lower(line.substr(0, split));
      const auto known = std::find_if(kFields.begin(), kFields.end(), [&](const auto& f) { return f.first == name; });
      if (known == kFields.end()) {
        std::vector<std::string> names;
        for (const auto& field : kFields) names.emplace_back(field.first);
        const std::string nearest = nearest_name(name, names);
        fail(where + ": " + (nearest.empty() ? "what stands before the colon" : quote(name)) + " is no NRRD field" + (nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?"));
      }
      if (!h_.fields.emplace(known->second, trim(line.substr(split + 1))).second)
        fail(where + ": field \"" + std::string(known->second) + "\" is there twice");
    }
  }

  void read_type_and_encoding() {
    const std::string type = lower(required("type"));
    const auto known = std::find_if(kTypes.begin(), kTypes.end(), [&](const auto& t) { return t.first == type; });
    if (known == kTypes.end()) fail_field("type", "an integer type, float or double");
    h_.dtype = known->second;

    const std::string encoding = lower(required("encoding"));
    if (encoding != "raw" && encoding != "gzip" && encoding != "gz") fail_field("encoding", "raw or gzip");
    h_.gzip = encoding != "raw";
    if (size_of(h_.dtype) > 1) {
      const std::string endian = lower(required("endian"));
      if (endian != "little" && endian != "big") fail_field("endian", "little or big");
      h_.big_endian = endian == "big";
    }
    if (has("line skip") && text_of("line skip") != "0") fail_field("line skip", "0");
    if (has("byte skip")) {
      const auto skip = parse_number<int64_t>(text_of("byte skip"));
      if (!skip || *skip < -1 || (*skip != 0 && (h_.gzip || !has("data file"))))
        fail_field("byte skip", "0, or for a raw data file -1 or more");
      h_.byte_skip = *skip;
    }
    h_.data_file = std::string(text_of("data file"));
    if (has("data file")) {
      const bool many = h_.data_file.starts_with("LIST") || h_.data_file.find('%') != h_.data_file.npos ||
                        h_.data_file.find(' ') != h_.data_file.npos;
      if (h_.data_file.empty() || many) fail_field("data file", "the name of one file");
    }
  }

  std::vector<int64_t> read_sizes() {
    const auto dimension = parse_number<int>(required("dimension"));
    if (!dimension || *dimension < 1 || *dimension > 16) fail_field("dimension", "1 to 16");
    std::vector<int64_t> sizes;
    for (const auto word : words(required("sizes"))) {
      const auto size = parse_number<int64_t>(word);
      if (!size || *size < 1 || *size > int64_t{1} << 31) fail_field("sizes", "whole numbers from 1 to 2147483648");
      sizes.push_back(*size);
    }
    if (int(sizes.size()) != *dimension)
      fail_field("sizes", std::to_string(*dimension) + " numbers, as \"dimension\" says");
    if (sizes.size() != 3 && sizes.size() != 4)
      fail("has " + std::to_string(sizes.size()) + " axes, expected a volume: 3, or 4 with channels");
    return sizes;
  }

  // "(1,0,0) none (0,1,0)": one vector of three, or none, per entry.
  std::vector<std::optional<Point>> read_vectors(const std::string& field) {
    std::vector<std::optional<Point>> out;
    for (std::string_view rest = trim(text_of(field)); !rest.empty(); rest = trim(rest)) {
      if (lower(rest.substr(0, 4)) == "none") {
        out.push_back(std::nullopt);
        rest.remove_prefix(4);
        continue;
      }
      const size_t close = rest.find(')');
      if (rest[0] != '(' || close == rest.npos) fail_field(field, "vectors like (1,0,0) or none");
      Point point{};
      std::string_view inside = rest.substr(1, close - 1);
      for (size_t i = 0; i < 3; ++i) {
        const size_t comma = i < 2 ? inside.find(',') : inside.size();
        const auto value = comma == inside.npos ? std::nullopt : parse_number<double>(trim(inside.substr(0, comma)));
        if (!value) fail_field(field, "vectors of three finite numbers");
        point[i] = *value;
        inside.remove_prefix(std::min(comma + 1, inside.size()));
      }
      out.push_back(point);
      rest.remove_prefix(close + 1);
    }
    return out;
  }

  // Which axis holds channels: the one without direction, or whose kind is no place in space; else the last of four.
  size_t channel_axis(size_t axes, const std::vector<std::optional<Point>>& directions) const {
    std::vector<size_t> candidates;
    const auto kinds = words(text_of("kinds"));
    for (size_t a = 0; a < axes; ++a) {
      if (!directions.empty() ? !directions[a].has_value()
                              : a < kinds.size() && lower(kinds[a]) != "domain" && lower(kinds[a]) != "space")
        candidates.push_back(a);
    }
    if (axes == 3 && candidates.empty()) return axes;
    if (axes == 4 && candidates.empty()) return 3;
    if (axes == 4 && candidates.size() == 1 && (candidates[0] == 0 || candidates[0] == 3)) return candidates[0];
    fail(
        "expected three axes in space and at most one of channels, first or last; \"space directions\" or \"kinds\" "
        "say otherwise");
  }

  // Signs that turn the file's space into RAS.
  Point signs_to_ras() {
    const std::string space = lower(text_of("space"));
    if (space == "right-anterior-superior" || space == "ras") return {1, 1, 1};
    if (space == "left-anterior-superior" || space == "las") return {-1, 1, 1};
    if (space == "left-posterior-superior" || space == "lps") return {-1, -1, 1};
    if (space.empty() || space == "scanner-xyz" || space == "3d-right-handed" || space == "3d-left-handed") {
      h_.notes.push_back(space.empty()
                             ? "no anatomical space: the orientation is unknown and taken as left-posterior-superior"
                             : "space " + space + " names no anatomical directions: taken as left-posterior-superior");
      return {-1, -1, 1};
    }
    fail_field("space", "right-anterior-superior, left-anterior-superior or left-posterior-superior");
  }

  double unit_mm() {
    double unit = 0;
    for (std::string_view rest = text_of("space units"); !(rest = trim(rest)).empty();) {
      const size_t close = rest[0] == '"' ? rest.find('"', 1) : rest.npos;
      if (close == rest.npos) fail_field("space units", "names in double quotes");
      const std::string name(rest.substr(1, close - 1));
      rest.remove_prefix(close + 1);
      double mm = name == "m"                                                  ? 1000
                  : name == "cm"                                               ? 10
                  : name == "um" || name == "\xc2\xb5m" || name == "\xce\xbcm" ? 0.001
                                                                               : 1;
      if (unit != 0 && unit != mm) fail_field("space units", "one unit for all directions");
      unit = mm;
    }
    if (unit != 0 && unit != 1) h_.notes.push_back("positions are not in millimetres and were turned to millimetres");
    return unit == 0 ? 1 : unit;
  }

  void read_geometry() {
    const std::vector<int64_t> sizes = read_sizes();
    if (has("space dimension") && text_of("space dimension") != "3") fail_field("space dimension", "3");
    if (has("space dimension") && has("space"))
      fail("has both \"space\" and \"space dimension\", expected one of them");
    const auto directions = read_vectors("space directions");
    if (has("space directions") && directions.size() != sizes.size())
      fail_field("space directions", std::to_string(sizes.size()) + " vectors, one per axis");
    if (has("kinds") && words(text_of("kinds")).size() != sizes.size())
      fail_field("kinds", std::to_string(sizes.size()) + " words, one per axis");
    const size_t channel = channel_axis(sizes.size(), directions);
    h_.channels = channel < sizes.size() ? sizes[channel] : 1;
    h_.channels_fastest = channel == 0;
    std::array<size_t, 3> axis{};  // file axis of x, y, z
    for (size_t a = 0, c = 0; a < sizes.size(); ++a)
      if (a != channel) axis[c++] = a;
    Geometry& g = h_.geometry;
    g.shape = {sizes[axis[2]], sizes[axis[1]], sizes[axis[0]]};

    const Point sign = signs_to_ras();
    const double unit = unit_mm();
    std::array<double, 3> spacing{1, 1, 1};
    h_.affine_source = "none";
    if (has("spacings")) {
      const auto list = words(text_of("spacings"));
      if (list.size() != sizes.size()) fail_field("spacings", std::to_string(sizes.size()) + " numbers, one per axis");
      for (size_t c = 0; c < 3 && directions.empty(); ++c) {
        const auto value = parse_number<double>(list[axis[c]]);
        if (!value || *value == 0) fail_field("spacings", "finite numbers other than 0 on the axes in space");
        spacing[c] = *value;
      }
      h_.affine_source = "spacings";
    }
    if (!directions.empty()) h_.affine_source = "space directions";
    for (size_t r = 0; r < 3; ++r)
      for (size_t c = 0; c < 3; ++c)
        g.affine[r][c] =
            sign[r] * unit * (directions.empty() ? (r == c ? spacing[c] : 0.0) : (*directions[axis[c]])[r]);
    const auto origin = read_vectors("space origin");
    if (has("space origin") && (origin.size() != 1 || !origin[0])) fail_field("space origin", "one vector");
    for (size_t r = 0; r < 3; ++r) g.affine[r][3] = origin.empty() ? 0.0 : sign[r] * unit * (*origin[0])[r];
    for (auto& row : g.affine)
      for (double& value : row) value += 0.0;  // -0 becomes 0
    if (g.is_singular()) fail("the affine from \"" + h_.affine_source + "\" is singular; voxels have no volume");
  }

  const std::filesystem::path& path_;
  std::string_view text_;
  NrrdHeader h_;
};

}  // namespace

NrrdHeader parse_nrrd_header(const std::filesystem::path& path, std::string_view text) {
  return Parser(path, text).parse();
}

}  // namespace fovea::io
