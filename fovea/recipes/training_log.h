#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "fovea/report/plot.h"

namespace fovea::recipes {

/// Columns of a CSV file of numbers by name (log.csv, validation.csv, timing.csv); an absent file has none.
std::map<std::string, std::vector<double>> read_columns(const std::filesystem::path& path);

/// A curve of at most `points` points: each the mean of its share, so that noise of single steps does not hide the trend.
report::Series smoothed(const std::string& name, const std::vector<double>& x, const std::vector<double>& y, size_t points);

}  // namespace fovea::recipes
