#include "fovea/core/error.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace fovea {

namespace detail {
std::string one_line(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 32 || c == 127) c = '?';
  return text;
}

void check_failed(const char* condition, const char* file, int line, const std::string& message) {
  const std::string_view path(file);
  throw InternalError("internal error at " + std::string(path.substr(path.rfind("fovea/") == path.npos ? 0 : path.rfind("fovea/"))) +
                      ":" + std::to_string(line) + ": " + message + " (" + condition + "); please report this");
}
}  // namespace detail

namespace {
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({substitute, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}
}  // namespace

std::string nearest_name(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 2) + 1;
  for (const std::string& candidate : candidates) {
    // The distance is at least the difference in length: a hostile word of kilobytes costs nothing.
    if (std::max(word.size(), candidate.size()) - std::min(word.size(), candidate.size()) >= best_distance) continue;
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) best = candidate, best_distance = distance;
  }
  return best;
}

}  // namespace fovea
