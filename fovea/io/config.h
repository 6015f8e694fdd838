#pragma once
#include <array>
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "fovea/core/error.h"
#include "fovea/io/json_file.h"

/// Config structs and JSON, both ways. A config is a plain struct with defaults and one function that names its
/// members; it needs no header of this layer:
///
///     enum class Blend { kConstant, kGaussian };
///     inline auto config_names(Blend) {
///       return std::array{std::pair{Blend::kConstant, "constant"}, std::pair{Blend::kGaussian, "gaussian"}};
///     }
///
///     struct PredictConfig {
///       std::array<int, 3> roi{96, 96, 96};
///       Blend blend = Blend::kGaussian;
///       template <class V> void visit(V& v) {
///         v("roi", roi, "voxels of a tile (z, y, x)");
///         v("blend", blend, "how overlapping tiles are weighted");
///       }
///       void validate() const;  // optional: throws ArgumentError; called after reading
///     };
///
/// Members may be bool, integers, float, double, std::string, std::filesystem::path, std::array, std::vector,
/// std::map<std::string, T>, std::optional (null = absent), enums with config_names, other configs, and Json (taken as
/// it is). A key that the JSON leaves out keeps its default; a key that the struct does not know is an error.
namespace fovea::io {

namespace detail {

struct AnyVisitor {
  template <class T>
  void operator()(const char*, T&, const char*) {}
};

template <class T>
concept Config = requires(T& t, AnyVisitor& v) {
  t.visit(v);
};
template <class T>
concept NamedEnum = std::is_enum_v<T> && requires(T t) {
  config_names(t);
};

template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};
template <class T>
struct is_vector : std::false_type {};
template <class T>
struct is_vector<std::vector<T>> : std::true_type {};
template <class T>
struct is_array : std::false_type {};
template <class T, size_t N>
struct is_array<std::array<T, N>> : std::true_type {};
template <class T>
struct is_map : std::false_type {};
template <class T>
struct is_map<std::map<std::string, T>> : std::true_type {};
template <class T>
inline constexpr bool always_false = false;

/// "the string \"on\"", "the number 3", "null", "a list of 2": what was found, short.
std::string describe(const Json& json);
[[noreturn]] void wrong_type(const std::string& where, const std::string& expected, const Json& found);
/// Refuses the keys of `json` that are not in `known`, naming the nearest.
void refuse_unknown(const Json& json, const std::vector<std::string>& known, const std::string& where);
/// The double whose shortest decimal form is that of `value`: 0.1f is written as 0.1, not as 0.10000000149.
double shortest_double(float value);
/// `where` and a key below it: "config.json" and "lr" give "config.json: lr", and that and "x" give "config.json:
/// lr.x".
std::string below(const std::string& where, const std::string& key);
/// JSON with all its scalar lists on one line.
std::string compact(const Json& json, int indent);

template <class E>
std::string enum_choices() {
  std::string choices;
  for (const auto& [value, name] : config_names(E{}))
    choices += (choices.empty() ? "\"" : ", \"") + std::string(name) + "\"";
  return "one of " + choices;
}

template <class T>
void read_value(const Json& json, T& value, const std::string& where);

struct Reader {
  const Json& json;
  const std::string& where;
  std::vector<std::string> known;

  template <class T>
  void operator()(const char* key, T& value, const char* /*comment*/ = "") {
    known.push_back(key);
    if (const auto found = json.find(key); found != json.end()) read_value(*found, value, below(where, key));
  }
};

template <std::integral T>
void read_integer(const Json& json, T& value, const std::string& where) {
  const std::string range = "an integer from " + std::to_string(std::numeric_limits<T>::min()) + " to " +
                            std::to_string(std::numeric_limits<T>::max());
  if (!json.is_number_integer()) wrong_type(where, range, json);
  const bool fits =
      json.is_number_unsigned() ? std::in_range<T>(json.get<uint64_t>()) : std::in_range<T>(json.get<int64_t>());
  if (!fits) wrong_type(where, range, json);
  value = json.get<T>();
}

template <class T>
void read_value(const Json& json, T& value, const std::string& where) {
  if constexpr (Config<T>) {
    if (!json.is_object()) wrong_type(where, "an object {...}", json);
    Reader reader{json, where, {}};
    value.visit(reader);
    refuse_unknown(json, reader.known, where);
    if constexpr (requires { value.validate(); }) value.validate();
  } else if constexpr (std::same_as<T, Json>) {
    value = json;
  } else if constexpr (std::same_as<T, bool>) {
    if (!json.is_boolean()) wrong_type(where, "true or false", json);
    value = json.get<bool>();
  } else if constexpr (NamedEnum<T>) {
    if (json.is_string())
      for (const auto& [candidate, name] : config_names(T{}))
        if (json.get_ref<const std::string&>() == name) return void(value = candidate);
    wrong_type(where, enum_choices<T>(), json);
  } else if constexpr (std::integral<T>) {
    read_integer(json, value, where);
  } else if constexpr (std::floating_point<T>) {
    if (!json.is_number()) wrong_type(where, "a number", json);
    value = static_cast<T>(json.get<double>());
    if (value - value != 0) wrong_type(where, "a finite number that fits", json);
  } else if constexpr (std::same_as<T, std::string> || std::same_as<T, std::filesystem::path>) {
    if (!json.is_string()) wrong_type(where, "a string", json);
    value = json.get_ref<const std::string&>();
  } else if constexpr (is_optional<T>::value) {
    if (json.is_null()) return value.reset();
    typename T::value_type present = value.value_or(typename T::value_type{});
    read_value(json, present, where);
    value = std::move(present);
  } else if constexpr (is_array<T>::value) {
    const size_t n = std::tuple_size_v<T>;
    if (!json.is_array() || json.size() != n) wrong_type(where, "a list of " + std::to_string(n), json);
    for (size_t i = 0; i < n; ++i) read_value(json[i], value[i], below(where, std::to_string(i)));
  } else if constexpr (is_vector<T>::value) {
    if (!json.is_array()) wrong_type(where, "a list [...]", json);
    value.clear();
    for (size_t i = 0; i < json.size(); ++i) {
      typename T::value_type item{};
      read_value(json[i], item, below(where, std::to_string(i)));
      value.push_back(std::move(item));
    }
  } else if constexpr (is_map<T>::value) {
    if (!json.is_object()) wrong_type(where, "an object {...}", json);
    value.clear();
    for (const auto& [key, item] : json.items()) read_value(item, value[key], below(where, key));
  } else {
    static_assert(always_false<T>, "this member type has no JSON form; see the top of fovea/io/config.h");
  }
}

template <class T>
Json write_value(const T& value);

struct Writer {
  Json& json;
  template <class T>
  void operator()(const char* key, T& value, const char* /*comment*/ = "") {
    json[key] = write_value(value);
  }
};

template <class T>
Json write_value(const T& value) {
  if constexpr (Config<T>) {
    Json json = Json::object();
    Writer writer{json};
    T copy = value;  // visit() is one function for reading and writing, hence not const
    copy.visit(writer);
    return json;
  } else if constexpr (NamedEnum<T>) {
    for (const auto& [candidate, name] : config_names(value))
      if (candidate == value) return name;
    throw ArgumentError("config: enum value " + std::to_string(static_cast<long long>(value)) +
                        " has no name, expected " + enum_choices<T>());
  } else if constexpr (std::floating_point<T>) {
    if (value - value != 0) throw ArgumentError("config: a value is not finite and has no JSON form");
    if constexpr (std::same_as<T, float>) return shortest_double(value);
    return double(value);
  } else if constexpr (std::integral<T> || std::same_as<T, std::string> || std::same_as<T, Json>) {
    return value;
  } else if constexpr (std::same_as<T, std::filesystem::path>) {
    return value.string();
  } else if constexpr (is_optional<T>::value) {
    return value ? write_value(*value) : Json(nullptr);
  } else if constexpr (is_array<T>::value || is_vector<T>::value) {
    Json json = Json::array();
    for (const typename T::value_type& item : value) json.push_back(write_value(item));
    return json;
  } else if constexpr (is_map<T>::value) {
    Json json = Json::object();
    for (const auto& [key, item] : value) json[key] = write_value(item);
    return json;
  } else {
    static_assert(always_false<T>, "this member type has no JSON form; see the top of fovea/io/config.h");
  }
}

// Prints members one a line, the comment above each.
struct Printer {
  std::string text;
  int indent = 0;
  bool first = true;

  template <class T>
  void operator()(const char* key, T& value, const char* comment = "") {
    const std::string margin(size_t(indent) * 2, ' ');
    text += first ? "{\n" : ",\n";
    first = false;
    if (comment && *comment) text += margin + "// " + comment + "\n";
    text += margin + Json(key).dump() + ": ";
    if constexpr (Config<T>) {
      Printer inner{{}, indent + 1, true};
      value.visit(inner);
      text += inner.close();
    } else {
      text += compact(write_value(value), indent);
    }
  }
  std::string close() { return first ? "{}" : text + "\n" + std::string(size_t(indent - 1) * 2, ' ') + "}"; }
};

}  // namespace detail

/// The config that `json` describes, on top of `defaults`. `where` (usually the file) begins each message.
/// Errors   ArgumentError "<where>: train.lr: expected a number, found the string "fast"", or for an unknown key its
///          nearest known one; whatever the config's own validate() throws.
template <detail::Config C>
C from_json(const Json& json, const std::string& where, C defaults = {}) {
  detail::read_value(json, defaults, where);
  return defaults;
}

/// All members of a config, in the order of its visit().
template <detail::Config C>
Json to_json(const C& config) {
  return detail::write_value(config);
}

/// The config as JSON with its comments: a file that read_config() takes back as it is.
template <detail::Config C>
std::string print_with_comments(const C& config) {
  C copy = config;
  detail::Printer printer{{}, 1, true};
  copy.visit(printer);
  return printer.close() + "\n";
}

/// Applies "a.b=c" (the value of --set): c is JSON if it parses as JSON, else the string itself; list items are
/// numbered from 0. Objects on the way are made when missing, so that the reader can name the nearest known key.
/// Errors   ArgumentError: no '=', an empty key, a step into something that is no object or list, broken JSON after [ {
///          ".
void apply_override(Json& config, std::string_view assignment);

/// The config in file `path`, with --set values on top.
template <detail::Config C>
C read_config(const std::filesystem::path& path, const std::vector<std::string>& overrides = {}, C defaults = {}) {
  Json json = read_json(path);
  for (const std::string& assignment : overrides) apply_override(json, assignment);
  return from_json<C>(json, path.string(), std::move(defaults));
}

}  // namespace fovea::io
