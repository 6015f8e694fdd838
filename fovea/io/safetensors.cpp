#include "fovea/io/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <numeric>

#include "fovea/core/error.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/input_file.h"
#include "fovea/io/json_file.h"

namespace fovea::io {

static_assert(std::endian::native == std::endian::little,
              "files are little-endian; this machine would need byte swaps");

namespace {

constexpr std::array<const char*, 13> kNames{"BOOL", "U8",  "I8",  "U16",  "I16", "U32", "I32",
                                             "U64",  "I64", "F16", "BF16", "F32", "F64"};
// Place of each dtype in the reference implementation's order of tensors; it falls along a file, and width with it.
constexpr std::array<int, 13> kRank{0, 1, 2, 4, 3, 8, 7, 12, 11, 5, 6, 9, 10};

struct Entry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;
};

// Takes the header apart event by event: memory stays proportional to the tensors described, whatever else a hostile
// header holds, and anything that is not {name: {dtype, shape, data_offsets}} ends the parse at once.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::map<std::string, Entry> entries;
  std::map<std::string, std::string> metadata;
  std::string problem;

  bool null() override { return fail("null"); }
  bool boolean(bool) override { return fail("true or false"); }
  bool number_integer(number_integer_t) override { return fail("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return fail("a number that is no integer"); }
  bool binary(binary_t&) override { return fail("a binary value"); }

  bool number_unsigned(number_unsigned_t v) override {
    if (where_ == Where::kShape && v <= uint64_t(INT64_MAX) && current_.shape.size() < 64)
      return current_.shape.push_back(int64_t(v)), true;
    if (where_ == Where::kOffsets && offsets_ < 2) return (offsets_++ == 0 ? current_.begin : current_.end) = v, true;
    return fail("the number " + std::to_string(v));
  }

  bool string(string_t& v) override {
    if (where_ == Where::kMetadata)
      return metadata.emplace(key_, v).second || fail_with("metadata key \"" + key_ + "\" is there twice");
    if (where_ != Where::kTensor || key_ != "dtype") return fail("a string");
    const auto known = std::find(kNames.begin(), kNames.end(), v);
    if (known == kNames.end())
      return fail_with("tensor \"" + current_.name + "\" has dtype " + v.substr(0, 20) +
                       ", expected BOOL, U8...I64, F16, BF16, F32 or F64");
    current_.dtype = DType(known - kNames.begin());
    return true;
  }

  bool start_object(size_t) override {
    if (where_ == Where::kOutside) return where_ = Where::kTop, true;
    if (where_ != Where::kTop) return fail("an object");
    where_ = key_ == "__metadata__" ? Where::kMetadata : Where::kTensor;
    current_ = Entry{};
    current_.name = key_;
    seen_ = 0;
    return true;
  }

  bool key(string_t& v) override {
    key_ = v;
    if (where_ == Where::kTop) {
      if (v == "__metadata__" ? std::exchange(has_metadata_, true) : entries.contains(v))
        return fail_with("\"" + v.substr(0, 200) + "\" is there twice");
    } else if (where_ == Where::kTensor) {
      const unsigned bit = v == "dtype" ? 1 : v == "shape" ? 2 : v == "data_offsets" ? 4 : 0;
      if (bit == 0)
        return fail_with("tensor \"" + current_.name + "\" has the unknown field \"" + v.substr(0, 40) + "\"");
      if (seen_ & bit) return fail_with("tensor \"" + current_.name + "\" has " + v + " twice");
      seen_ |= bit;
    }
    return true;
  }

  bool start_array(size_t) override {
    if (where_ != Where::kTensor || key_ == "dtype") return fail("a list");
    where_ = key_ == "shape" ? Where::kShape : Where::kOffsets;
    offsets_ = 0;
    return true;
  }

  bool end_array() override {
    if (where_ == Where::kOffsets && offsets_ != 2)
      return fail_with("tensor \"" + current_.name + "\" needs two data_offsets");
    return where_ = Where::kTensor, true;
  }

  bool end_object() override {
    if (where_ == Where::kTop) return where_ = Where::kOutside, true;
    if (where_ == Where::kTensor) {
      if (seen_ != 7) return fail_with("tensor \"" + current_.name + "\" lacks dtype, shape or data_offsets");
      entries.emplace(current_.name, std::move(current_));
    }
    return where_ = Where::kTop, true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    return fail_with("byte " + std::to_string(position + 7) + ": the header is not JSON");
  }

 private:
  enum class Where { kOutside, kTop, kMetadata, kTensor, kShape, kOffsets };

  bool fail_with(const std::string& what) {
    problem = what;
    return false;
  }
  bool fail(const std::string& found) {
    return fail_with("the header has " + found + " where the format allows none, near \"" + key_.substr(0, 80) + "\"");
  }

  Where where_ = Where::kOutside;
  std::string key_;
  Entry current_;
  unsigned seen_ = 0;
  int offsets_ = 0;
  bool has_metadata_ = false;
};

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t s : shape) text += (text.empty() ? "" : ",") + std::to_string(s);
  return "[" + text + "]";
}

// Bytes of a tensor; false when the product of its sizes, zeros aside, does not fit in 63 bits.
bool byte_count(DType dtype, const std::vector<int64_t>& shape, uint64_t& bytes) {
  int64_t n = int64_t(size_of(dtype));
  bool empty = false;
  for (const int64_t s : shape) {
    if (s == 0)
      empty = true;
    else if (__builtin_mul_overflow(n, s, &n))
      return false;
  }
  bytes = empty ? 0 : uint64_t(n);
  return true;
}

// Entries in file order; all ranges together cover [0, data_bytes) once.
std::vector<Entry> check_ranges(const std::filesystem::path& path, std::map<std::string, Entry>&& entries,
                                uint64_t data_bytes) {
  std::vector<Entry> order;
  for (auto& [name, entry] : entries) order.push_back(std::move(entry));
  std::stable_sort(order.begin(), order.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t next = 0;
  for (const Entry& e : order) {
    const std::string tensor = "tensor \"" + e.name + "\" " + shape_text(e.shape) + " " + std::string(name_of(e.dtype));
    const std::string range = std::to_string(e.begin) + " to " + std::to_string(e.end);
    uint64_t bytes = 0;
    if (!byte_count(e.dtype, e.shape, bytes)) throw IoError(path, tensor + ": the size of this shape overflows");
    if (e.end < e.begin || e.end - e.begin != bytes)
      throw IoError(path, tensor + " needs " + std::to_string(bytes) + " bytes, but its range is " + range);
    if (e.begin != next)
      throw IoError(path, tensor + " lies at " + range + ", expected to start at " + std::to_string(next) +
                              (e.begin < next ? ": it overlaps another" : ": a hole before it"));
    next = e.end;
  }
  if (next != data_bytes)
    throw IoError(path, "the tensors need " + std::to_string(next) + " bytes of data, the file holds " +
                            std::to_string(data_bytes) +
                            (next > data_bytes ? "; it is truncated" : "; bytes follow that belong to no tensor"));
  return order;
}

}  // namespace

TensorMap read_safetensors(const std::filesystem::path& path, std::map<std::string, std::string>* metadata) {
  const InputFile file(path);
  uint64_t length = 0;
  if (file.size() < sizeof length)
    throw IoError(path, "has " + std::to_string(file.size()) + " bytes, expected a safetensors file (at least 8)");
  file.read_at(0, std::as_writable_bytes(std::span(&length, 1)));
  if (length > kMaxSafetensorsHeader)
    throw IoError(path, "header of " + std::to_string(length) +
                            " bytes, expected at most 100000000; is this a safetensors file?");
  if (length > file.size() - sizeof length)
    throw IoError(path, "header of " + std::to_string(length) + " bytes, but the file has " +
                            std::to_string(file.size()) + "; it is truncated");
  std::string text(length, '\0');
  file.read_at(sizeof length, std::as_writable_bytes(std::span(text)));
  // Anything but spaces after the last brace could hide a second file (a pickle, for instance) from scanners.
  const size_t last = text.find_last_not_of(' ');
  if (text.empty() || text[0] != '{' || text[last] != '}')
    throw IoError(path, "header does not run from { to } with only spaces after it");
  if (const size_t bad = invalid_utf8(text); bad != text.npos)
    throw IoError(path, "byte " + std::to_string(bad + 8) + ": the header is not UTF-8");

  HeaderReader header;
  if (!nlohmann::json::sax_parse(text, &header)) throw IoError(path, header.problem);
  TensorMap tensors;
  for (Entry& e : check_ranges(path, std::move(header.entries), file.size() - sizeof length - length)) {
    TensorData& tensor = tensors[e.name];
    tensor.dtype = e.dtype, tensor.shape = std::move(e.shape);
    tensor.data.resize(e.end - e.begin);
    file.read_at(sizeof length + length + e.begin, tensor.data);
  }
  if (metadata) *metadata = std::move(header.metadata);
  return tensors;
}

void write_safetensors(const std::filesystem::path& path, const TensorMap& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const TensorMap::value_type*> order;
  for (const auto& item : tensors) order.push_back(&item);
  std::stable_sort(order.begin(), order.end(),
                   [](auto* a, auto* b) { return kRank[size_t(a->second.dtype)] > kRank[size_t(b->second.dtype)]; });

  uint64_t at = 0;
  std::string text;
  const auto dump = [](const Json& json) {
    try {
      return json.dump();
    } catch (const Json::exception&) {
      throw ArgumentError("safetensors: a tensor name or metadata text is not UTF-8");
    }
  };
  if (!metadata.empty()) text = "\"__metadata__\":" + dump(Json(metadata));
  for (const auto* item : order) {
    const auto& [name, tensor] = *item;
    uint64_t bytes = 0;
    if (name == "__metadata__") throw ArgumentError("safetensors: a tensor cannot be called __metadata__");
    const bool negative = std::any_of(tensor.shape.begin(), tensor.shape.end(), [](int64_t s) { return s < 0; });
    if (negative || !byte_count(tensor.dtype, tensor.shape, bytes) || bytes != tensor.data.size())
      throw ArgumentError("safetensors: tensor \"" + name + "\" " + shape_text(tensor.shape) + " has " +
                          std::to_string(tensor.data.size()) + " bytes, expected " + std::to_string(bytes));
    Json entry = Json::object();
    entry["dtype"] = kNames[size_t(tensor.dtype)];
    entry["shape"] = tensor.shape;
    entry["data_offsets"] = {at, at + bytes};
    text += (text.empty() ? "" : ",") + dump(Json(name)) + ":" + entry.dump();
    at += bytes;
  }
  text = "{" + text + "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxSafetensorsHeader)
    throw ArgumentError("safetensors: the names of " + std::to_string(tensors.size()) +
                        " tensors need more than 100 MB");

  AtomicFile file(path);
  const uint64_t length = text.size();
  file.write(&length, sizeof length);
  file.write(text);
  for (const auto* item : order) file.write(item->second.data.data(), item->second.data.size());
  file.commit();
}

}  // namespace fovea::io
