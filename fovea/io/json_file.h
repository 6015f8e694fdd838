#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace fovea::io {

/// JSON whose objects keep the order of their keys.
using Json = nlohmann::ordered_json;

inline constexpr int kMaxJsonDepth = 32;
inline constexpr uint64_t kMaxJsonBytes = uint64_t{64} << 20;

/// Strict JSON (RFC 8259) from text; // and /* */ comments are allowed. `where` begins each message.
/// Errors   ArgumentError "<where>: line 3, column 7: ..." for a syntax error, a key that is there twice, nesting
///          deeper than 32, or bytes that are not UTF-8.
Json parse_json(std::string_view text, const std::string& where);

/// The same from a file of at most 64 MiB. Errors: IoError.
Json read_json(const std::filesystem::path& path);

/// A whole number of JSON that is not trusted. get<int64_t>() would cast 1e30, too, which no rule of the language defines.
/// Errors   Json::type_error for anything else, a number with a fraction or an exponent among it; one above the largest int64
///          becomes negative
inline int64_t whole_number(const Json& value) { return value.get_ref<const Json::number_integer_t&>(); }

/// Indented by two spaces, one line end at the end of the file; the file appears whole or not at all.
void write_json(const std::filesystem::path& path, const Json& json);

/// Byte at which `text` stops being valid UTF-8, or npos.
size_t invalid_utf8(std::string_view text);

}  // namespace fovea::io
