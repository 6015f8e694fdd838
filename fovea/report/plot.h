#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fovea/report/colour.h"

namespace fovea::report {

/// A curve; values that are not finite (or not positive on a log axis) leave a gap.
struct Series {
  std::string name;
  std::vector<double> x, y;
  std::optional<Colour> colour = {};  // none: category_colour of its place
  bool dashed = false;
  bool points = false;  // a dot at each value
  bool joined = true;   // by lines; false: a cloud of points
};

/// A level drawn across the whole plot, e.g. the baseline to beat.
struct Level {
  std::string name;
  double y = 0;
};

struct LinePlot {
  std::string title, x_label, y_label;
  std::vector<Series> series = {};
  std::vector<Level> levels = {};
  bool log_x = false, log_y = false;
  std::optional<std::pair<double, double>> y_range = {};  // none: from the data
  int width = 640, height = 320;                          // of the viewBox; the picture scales to its container
};

struct Bars {
  std::string name;
  std::vector<double> values;               // one a category; not finite: no bar
  std::vector<double> low = {}, high = {};  // ends of error bars; empty: none
  std::optional<Colour> colour = {};
};

/// Groups of upright bars, one group a category, with the value written above each bar.
struct BarPlot {
  std::string title, y_label;
  std::vector<std::string> categories;
  std::vector<Bars> bars;
  std::vector<Level> levels = {};
  std::optional<std::pair<double, double>> y_range = {};  // none: from 0 to the data
  int decimals = 2;
  int width = 640, height = 320;
};

/// A complete SVG element that also stands alone as a file. Its text takes the colours of the page through the CSS
/// variables --ink, --muted and --rule, with defaults for a white page; titles and labels are escaped.
/// Errors: ArgumentError when a series has unequal x and y, or bars a number of values other than that of categories.
std::string to_svg(const LinePlot& plot);
std::string to_svg(const BarPlot& plot);

/// About `count` round values (1, 2 or 5 times a power of ten) within [low, high].
std::vector<double> round_ticks(double low, double high, int count);

}  // namespace fovea::report
