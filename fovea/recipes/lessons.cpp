#include "fovea/recipes/lessons.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "fovea/core/error.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts(1);
  for (const char c : text)
    if (c == at)
      parts.emplace_back();
    else
      parts.back() += c;
  return parts;
}

std::string trimmed(const std::string& text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  size_t from = 0, to = text.size();
  while (from < to && blank(text[from])) ++from;
  while (to > from && blank(text[to - 1])) --to;
  return text.substr(from, to - from);
}

std::optional<double> parsed(const std::string& text) {
  std::string t = trimmed(text);
  if (t.starts_with('+')) t.erase(0, 1);
  double value = 0;
  const auto [end, error] = std::from_chars(t.data(), t.data() + t.size(), value);
  if (t.empty() || error != std::errc() || end != t.data() + t.size() || !std::isfinite(value)) return {};
  return value;
}

std::string lowered(std::string text) {
  for (char& c : text) c = char(std::tolower(static_cast<unsigned char>(c)));
  return text;
}
}  // namespace

LessonArguments::LessonArguments(const std::string& lesson, const std::vector<LessonFlag>& flags,
                                 const std::map<std::string, std::string>& given, uint64_t seed)
    : lesson_(lesson), seed_(seed) {
  std::string known;
  for (const LessonFlag& flag : flags) {
    values_[flag.name] = flag.standard;
    known += (known.empty() ? "--" : ", --") + flag.name;
  }
  for (const auto& [name, value] : given) {
    if (!values_.count(name))
      throw ArgumentError("lesson " + lesson + ": takes no --" + name + (known.empty() ? "" : "; it takes " + known));
    values_[name] = value;
  }
}

void LessonArguments::refuse(const std::string& flag, const std::string& expected) const {
  throw ArgumentError("lesson " + lesson_ + ": --" + flag + " " + text(flag) + ": expected " + expected);
}

double LessonArguments::number(const std::string& flag) const {
  const auto value = parsed(text(flag));
  if (!value) refuse(flag, "a number");
  return *value;
}

int64_t LessonArguments::whole(const std::string& flag, int64_t least, int64_t most) const {
  const auto all = wholes(flag, least, most);
  if (all.size() != 1) refuse(flag, "one number");
  return all[0];
}

std::vector<int64_t> LessonArguments::wholes(const std::string& flag, int64_t least, int64_t most) const {
  std::vector<int64_t> out;
  for (const std::string& part : split(text(flag), ',')) {
    const auto value = parsed(part);
    if (!value || *value != std::floor(*value) || *value < double(least) || *value > double(most))
      refuse(flag, "whole numbers from " + std::to_string(least) + " to " + std::to_string(most));
    out.push_back(int64_t(*value));
  }
  return out;
}

std::vector<std::vector<double>> LessonArguments::rows(const std::string& flag) const {
  std::vector<std::vector<double>> out;
  for (const std::string& row : split(text(flag), ';')) {
    out.emplace_back();
    for (const std::string& cell : split(row, ',')) {
      const auto value = parsed(cell);
      if (!value) refuse(flag, "rows of numbers such as 2,0;0,2");
      out.back().push_back(*value);
    }
    if (out.back().size() != out.front().size()) refuse(flag, "rows of equal length");
  }
  return out;
}

bool LessonAnswer::accepts(const std::string& given) const {
  if (!words.empty())
    return std::any_of(words.begin(), words.end(),
                       [&](const std::string& word) { return lowered(trimmed(given)) == lowered(word); });
  const auto number = parsed(given);
  // A rounding of the last digit more: what is typed is decimal.
  return number && std::abs(*number - value) <= tolerance + 1e-12 * std::abs(value);
}

std::string LessonAnswer::text() const {
  if (!words.empty()) return words.front();
  std::string text = report::compact(value, value == std::floor(value) ? 12 : 4);
  if (tolerance > 0) text += " ± " + report::compact(tolerance, 2);
  return text;
}

const std::vector<Lesson>& lessons() {
  static const std::vector<Lesson> all = [] {
    std::vector<Lesson> list;
    for (const auto group : {score_lessons, window_lessons, layer_lessons, kernel_lessons, spatial_lessons, trained_lessons,
                             fusion_lessons, report_text_lessons, radiomics_lessons, prognosis_lessons, science_lessons,
                             bag_lessons, autoencoder_lessons})
      for (Lesson& lesson : group()) list.push_back(std::move(lesson));
    return list;
  }();
  return all;
}

const Lesson& find_lesson(const std::string& name) {
  std::vector<std::string> known;
  for (const Lesson& lesson : lessons()) {
    if (lesson.name == name) return lesson;
    known.push_back(lesson.name);
  }
  const std::string near = nearest_name(name, known);
  throw ArgumentError("lesson: no lesson is called '" + name + "'" +
                      (near.empty() ? "" : ", did you mean " + near + "?") + "; fovea lesson lists them");
}

LessonResult run_lesson(const Lesson& lesson, const std::map<std::string, std::string>& flags, uint64_t seed) {
  LessonResult result = lesson.run(LessonArguments(lesson.name, lesson.flags, flags, seed));
  FOVEA_CHECK(!result.answers.empty() && !result.picture.empty(),
              "lesson " + lesson.name + " without answer or picture");
  return result;
}

std::string lesson_picture(const LessonResult& result) {
  return report::to_svg(result.picture, result.picture_columns);
}

LessonVerdict judge(const Lesson& lesson, const LessonResult& result, const std::string& given) {
  std::string commas = given;  // also those of Chinese text
  for (size_t at = 0; (at = commas.find("，", at)) != commas.npos;) commas.replace(at, std::string("，").size(), ",");
  const auto parts = split(commas, ',');
  if (parts.size() > result.answers.size())
    throw ArgumentError("lesson " + lesson.name + ": --answer " + given + " has " + std::to_string(parts.size()) +
                        " values, " + std::to_string(result.answers.size()) + " can be answered");
  LessonVerdict verdict{true, {}};
  for (size_t i = 0; i < parts.size(); ++i) {
    const LessonAnswer& answer = result.answers[i];
    if (answer.words.empty() && !parsed(parts[i]))
      throw ArgumentError("lesson " + lesson.name + ": --answer '" + parts[i] + "' is no number, expected the " +
                          answer.asked.en);
    verdict.each.push_back(answer.accepts(parts[i]));
    verdict.right &= verdict.each.back();
  }
  return verdict;
}

}  // namespace fovea::recipes
