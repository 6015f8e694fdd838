#include "fovea/recipes/training_log.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>

namespace fovea::recipes {

std::map<std::string, std::vector<double>> read_columns(const std::filesystem::path& path) {
  std::map<std::string, std::vector<double>> columns;
  std::ifstream file(path);
  std::string line, cell;
  if (!std::getline(file, line)) return columns;
  std::vector<std::string> names;
  for (std::istringstream head(line); std::getline(head, cell, ',');) names.push_back(cell);
  while (std::getline(file, line)) {
    std::istringstream row(line);
    for (size_t c = 0; c < names.size() && std::getline(row, cell, ','); ++c) columns[names[c]].push_back(std::strtod(cell.c_str(), nullptr));
  }
  return columns;
}

report::Series smoothed(const std::string& name, const std::vector<double>& x, const std::vector<double>& y, size_t points) {
  report::Series series;
  series.name = name;
  const size_t n = std::min(x.size(), y.size()), share = std::max<size_t>(1, (n + points - 1) / points);
  for (size_t begin = 0; begin < n; begin += share) {
    double sum = 0;
    int64_t count = 0;
    const size_t end = std::min(n, begin + share);
    for (size_t i = begin; i < end; ++i)
      if (std::isfinite(y[i])) sum += y[i], ++count;
    series.x.push_back(x[end - 1]), series.y.push_back(count ? sum / double(count) : std::numeric_limits<double>::quiet_NaN());
  }
  return series;
}

}  // namespace fovea::recipes
