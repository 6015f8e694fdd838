#include "fovea/io/config.h"

#include <algorithm>
#include <charconv>

namespace fovea::io {

namespace detail {

std::string describe(const Json& json) {
  const auto shortened = [&] {
    std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
    return text.size() <= 60 ? text : text.substr(0, 57) + "...";
  };
  if (json.is_null()) return "null";
  if (json.is_string()) return "the string " + shortened();
  if (json.is_number()) return "the number " + shortened();
  if (json.is_array()) return "a list of " + std::to_string(json.size()) + ", " + shortened();
  if (json.is_object()) return "an object of " + std::to_string(json.size()) + " keys";
  return shortened();
}

void wrong_type(const std::string& where, const std::string& expected, const Json& found) {
  throw ArgumentError(where + ": expected " + expected + ", found " + describe(found));
}

void refuse_unknown(const Json& json, const std::vector<std::string>& known, const std::string& where) {
  for (const auto& item : json.items()) {
    if (std::find(known.begin(), known.end(), item.key()) != known.end()) continue;
    const std::string nearest = nearest_name(item.key(), known);
    std::string hint = nearest.empty() ? "; known keys:" : "; did you mean \"" + nearest + "\"?";
    if (nearest.empty())
      for (const std::string& name : known) hint += " " + name;
    throw ArgumentError(below(where, item.key()) + ": unknown key" + hint);
  }
}

double shortest_double(float value) {
  char text[32];
  const auto written = std::to_chars(text, text + sizeof text, value);
  double wide = 0;
  std::from_chars(text, written.ptr, wide);
  return wide;
}

std::string below(const std::string& where, const std::string& key) {
  // The first step goes after a colon: a file name may itself hold dots.
  return where + (where.find(": ") == where.npos ? ": " : ".") + key;
}

std::string compact(const Json& json, int indent) {
  const bool scalars = std::none_of(json.begin(), json.end(), [](const Json& item) { return item.is_structured(); });
  if (!json.is_structured() || json.empty() || (json.is_array() && scalars)) {
    std::string text;
    if (!json.is_array()) return json.dump();
    for (const Json& item : json) text += (text.empty() ? "" : ", ") + item.dump();
    return "[" + text + "]";
  }
  const std::string margin(size_t(indent + 1) * 2, ' ');
  std::string text;
  for (const auto& item : json.items()) {
    text += (text.empty() ? "" : ",\n") + margin + (json.is_object() ? Json(item.key()).dump() + ": " : "") +
            compact(item.value(), indent + 1);
  }
  const char* brackets = json.is_object() ? "{}" : "[]";
  return brackets[0] + ("\n" + text + "\n") + std::string(size_t(indent) * 2, ' ') + brackets[1];
}

}  // namespace detail

void apply_override(Json& config, std::string_view assignment) {
  const std::string where = "--set " + std::string(assignment);
  const size_t equals = assignment.find('=');
  if (equals == assignment.npos || equals == 0)
    throw ArgumentError(where + ": expected key=value, for example train.lr=0.001");
  const std::string_view path = assignment.substr(0, equals), text = assignment.substr(equals + 1);

  Json value = std::string(text);
  const bool looks_like_json = !text.empty() && (text[0] == '[' || text[0] == '{' || text[0] == '"');
  try {
    value = parse_json(text, where);
  } catch (const ArgumentError&) {
    if (looks_like_json) throw;
  }

  std::vector<std::string> steps;
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find('.', start), path.size());
    steps.emplace_back(path.substr(start, end - start));
    if (steps.back().empty()) throw ArgumentError(where + ": expected names between the dots");
    start = end + 1;
  }

  Json* at = &config;
  for (const std::string& step : steps) {
    if (at->is_null()) *at = Json::object();
    if (at->is_object()) {
      at = &(*at)[step];
    } else if (at->is_array()) {
      size_t index = 0;
      const auto parsed = std::from_chars(step.data(), step.data() + step.size(), index);
      if (parsed.ec != std::errc() || parsed.ptr != step.data() + step.size() || index >= at->size())
        throw ArgumentError(where + ": expected the number of a list item from 0 to " +
                            std::to_string(int64_t(at->size()) - 1) + ", found \"" + step + "\"");
      at = &(*at)[index];
    } else {
      throw ArgumentError(where + ": \"" + step + "\" goes into " + detail::describe(*at) + ", expected an object");
    }
  }
  *at = std::move(value);
}

}  // namespace fovea::io
