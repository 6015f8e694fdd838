#pragma once
#include <algorithm>
#include <initializer_list>
#include <sstream>
#include <string>
#include <vector>

#include "fovea/core/error.h"

namespace fovea::models {

/// The checks of a configuration; a failure is one line "<network>: <field> is <value>, expected <rule>".
class ConfigRule {
 public:
  explicit ConfigRule(const char* network) : network_(network) {}

  template <class Value>
  void expect(bool holds, const char* field, const Value& value, const std::string& rule) const {
    if (holds) return;
    std::ostringstream line;
    line << network_ << ": " << field << " is ";
    print(line, value);
    throw ArgumentError(line.str() + ", expected " + rule);
  }

  void one_of(const char* field, const std::string& value, std::initializer_list<const char*> words) const {
    std::string list;
    for (const char* word : words) list += (list.empty() ? "" : ", ") + std::string(word);
    expect(std::find(words.begin(), words.end(), value) != words.end(), field, value, "one of " + list);
  }

 private:
  template <class Value>
  static void print(std::ostream& out, const Value& value) { out << value; }
  static void print(std::ostream& out, bool value) { out << (value ? "true" : "false"); }
  static void print(std::ostream& out, const std::vector<int64_t>& values) {
    for (size_t i = 0; i < values.size(); ++i) out << (i == 0 ? "[" : ", ") << values[i];
    out << (values.empty() ? "[]" : "]");
  }

  const char* network_;
};

}  // namespace fovea::models
