#pragma once
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "fovea/report/image.h"
#include "fovea/report/plot.h"

namespace fovea::report {

/// A table of numbers as coloured cells, row by row from the top left: attention weights, a bias table's plane.
struct HeatMap {
  std::string title;
  std::vector<std::string> row_names = {}, column_names = {};  // as many as rows, columns; empty: none
  int rows = 0, columns = 0;
  std::vector<double> values = {};                      // rows * columns; not finite: an empty cell
  std::optional<std::pair<double, double>> range = {};  // of the colours; none: from 0 to the largest value
  std::optional<int> decimals = {};                     // write each value into its cell
  std::optional<std::pair<int, int>> marked = {};       // row, column of a cell with a frame
  std::string x_label = {}, y_label = {};
  int width = 320, height = 240;
};

/// A raster picture under its title, as large as fits, its pixels square.
struct Raster {
  std::string title;
  Image image;
  int width = 320, height = 320;
};

using Panel = std::variant<LinePlot, BarPlot, HeatMap, Raster>;

/// Panels side by side, row by row, `columns` in a row, as one SVG file with a background of its own (the page's where
/// it stands in one). Errors: ArgumentError as to_svg(), when values are not rows * columns, or there is no panel.
std::string to_svg(const std::vector<Panel>& panels, int columns);

}  // namespace fovea::report
