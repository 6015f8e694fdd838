#include "fovea/report/plot.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "fovea/core/error.h"
#include "fovea/report/svg.h"
#include "fovea/report/text.h"

namespace fovea::report {
namespace {

/// Takes values to pixels, linearly or by logarithm.
struct Axis {
  double low = 0, high = 1, from = 0, to = 1;  // values, pixels
  bool log = false;

  bool shows(double v) const { return std::isfinite(v) && (!log || v > 0); }
  double operator()(double v) const {
    const double t = log ? (std::log(v) - std::log(low)) / (std::log(high) - std::log(low)) : (v - low) / (high - low);
    return from + t * (to - from);
  }
  std::vector<double> ticks(int count) const {
    if (!log) return round_ticks(low, high, count);
    const int first = static_cast<int>(std::floor(std::log10(low))),
              last = static_cast<int>(std::floor(std::log10(high) + 1e-9));
    const int step = std::max(1, (last - first) / std::max(count, 1));
    std::vector<double> out;
    for (int e = first; e <= last; e += step) {
      for (double m : {1.0, 2.0, 5.0}) {
        const double v = m * std::pow(10.0, e);
        if ((m == 1 || last - first < 3) && v >= low * (1 - 1e-9) && v <= high * (1 + 1e-9)) out.push_back(v);
      }
    }
    if (out.size() >= 2) return out;
    return round_ticks(low, high, count);  // a narrow range
  }
};

/// Widens an empty range, keeps log ranges positive, and adds a little air above and below.
void set_range(Axis& axis, double low, double high, double air) {
  if (!(low <= high)) low = axis.log ? 1 : 0, high = axis.log ? 10 : 1;  // no data
  if (axis.log) {
    if (high <= low * 1.001) low /= 2, high *= 2;
    const double factor = std::pow(high / low, air);
    axis.low = std::max(low / factor, std::numeric_limits<double>::min()), axis.high = high * factor;
    return;
  }
  if (!(high > low)) {
    const double half = low == 0 ? 1 : std::abs(low) * 0.5;
    low -= half, high += half;
  }
  axis.low = low - air * (high - low), axis.high = high + air * (high - low);
}

struct LegendEntry {
  std::string name, colour;
  bool dashed = false, box = false;
};

/// Title, legend (wrapped into rows), y label, horizontal rules with their numbers. Returns the y axis placed between
/// what is above and `bottom`; `left` and `right` receive the horizontal extent of the plotting area.
Axis draw_frame(Svg& svg, const std::string& title, const std::string& y_label, const std::vector<LegendEntry>& legend,
                Axis y, int width, double bottom, double& left, double& right) {
  double top = 8;
  if (!title.empty()) svg.text(12, top += 12, title, "start", kInk, " font-size=\"14\" font-weight=\"600\""), top += 8;
  if (!legend.empty()) {
    double x = 12;
    top += 12;
    for (const LegendEntry& e : legend) {
      const double wide = 26 + text_width_of(e.name) + 14;
      if (x > 12 && x + wide > width - 12) x = 12, top += 18;
      if (e.box) {
        svg.rectangle(x + 4, top - 9, 10, 10, e.colour);
      } else {
        svg.line(x, top - 4, x + 18, top - 4, e.colour,
                 e.dashed ? " stroke-width=\"2\" stroke-dasharray=\"5 4\"" : " stroke-width=\"2\"");
      }
      svg.text(x + 24, top, e.name, "start", kInk);
      x += wide;
    }
    top += 6;
  }
  if (!y_label.empty()) svg.text(12, top += 14, y_label, "start", kMuted), top += 2;
  y.to = top + 10, y.from = bottom;
  const auto ticks = y.ticks(5);
  double widest = 0;
  for (double v : ticks) widest = std::max(widest, text_width_of(compact(v)));
  left = 22 + widest, right = width - 16;
  for (double v : ticks) {
    svg.line(left, y(v), right, y(v), kRule);
    svg.text(left - 6, y(v) + 4, compact(v), "end", kMuted);
  }
  svg.line(left, bottom, right, bottom, kMuted);
  return y;
}

void draw_levels(Svg& svg, const std::vector<Level>& levels, const Axis& y, double left, double right) {
  for (const Level& level : levels) {
    if (!y.shows(level.y) || level.y < y.low || level.y > y.high) continue;
    svg.line(left, y(level.y), right, y(level.y), kInk, " stroke-dasharray=\"2 3\" stroke-width=\"1.2\"");
    svg.text(right, y(level.y) - 4, level.name, "end", kInk, " font-size=\"11\"");
  }
}

std::string colour_of(const std::optional<Colour>& colour, size_t place) {
  return to_hex(colour.value_or(category_colour(static_cast<int>(place))));
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int count) {
  if (!(high > low) || !std::isfinite(high - low) || count < 1) return {low};
  const double raw = (high - low) / count, power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = power;
  for (double m : {1.0, 2.0, 5.0, 10.0}) {
    step = m * power;
    if (step >= raw * 0.999) break;
  }
  std::vector<double> out;
  // From whole numbers of steps: adding steps up would drift.
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + step * 1e-9 && out.size() < 1000; ++i) {
    const double v = i * step;
    out.push_back(std::abs(v) < step * 1e-9 ? 0 : std::stod(compact(v, 12)));
  }
  return out;
}

std::string to_svg(const LinePlot& plot) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double x_low = kInfinity, x_high = -kInfinity, y_low = kInfinity, y_high = -kInfinity;
  Axis x, y;
  x.log = plot.log_x, y.log = plot.log_y;
  std::vector<LegendEntry> legend;
  for (size_t s = 0; s < plot.series.size(); ++s) {
    const Series& series = plot.series[s];
    if (series.x.size() != series.y.size()) {
      throw ArgumentError("to_svg: series '" + series.name + "' has " + std::to_string(series.x.size()) + " x and " +
                          std::to_string(series.y.size()) + " y values, expected as many");
    }
    for (size_t i = 0; i < series.x.size(); ++i) {
      if (!x.shows(series.x[i]) || !y.shows(series.y[i])) continue;
      x_low = std::min(x_low, series.x[i]), x_high = std::max(x_high, series.x[i]);
      y_low = std::min(y_low, series.y[i]), y_high = std::max(y_high, series.y[i]);
    }
    if (!series.name.empty()) legend.push_back({series.name, colour_of(series.colour, s), series.dashed, false});
  }
  for (const Level& level : plot.levels) {
    if (y.shows(level.y)) y_low = std::min(y_low, level.y), y_high = std::max(y_high, level.y);
  }
  const bool any = x_low <= x_high;
  set_range(x, x_low, x_high, 0);
  set_range(y, y_low, y_high, 0.04);
  if (plot.y_range && plot.y_range->second > plot.y_range->first && y.shows(plot.y_range->first)) {
    y.low = plot.y_range->first, y.high = plot.y_range->second;
  }

  Svg svg(plot.width, plot.height, plot.title);
  double left = 0, right = 0;
  const double bottom = plot.height - (plot.x_label.empty() ? 26 : 44);
  y = draw_frame(svg, plot.title, plot.y_label, legend, y, plot.width, bottom, left, right);
  x.from = left, x.to = right;
  for (double v : x.ticks(8)) {
    svg.line(x(v), bottom, x(v), bottom + 4, kMuted);
    svg.text(std::min(x(v), right - text_width_of(compact(v)) / 2 + 8), bottom + 17, compact(v), "middle", kMuted);
  }
  svg.text((left + right) / 2, plot.height - 8, plot.x_label, "middle", kMuted);
  draw_levels(svg, plot.levels, y, left, right);
  if (!any) svg.text((left + right) / 2, (y.from + y.to) / 2, "no data", "middle", kMuted);

  for (size_t s = 0; s < plot.series.size(); ++s) {
    const Series& series = plot.series[s];
    const std::string colour = colour_of(series.colour, s);
    std::vector<std::pair<double, double>> run;
    const auto flush = [&] {
      if (run.size() > 1 && series.joined) svg.polyline(run, colour, series.dashed);
      if (run.size() == 1 && !series.points) svg.dot(run[0].first, run[0].second, colour);
      run.clear();
    };
    for (size_t i = 0; i < series.x.size(); ++i) {
      if (!x.shows(series.x[i]) || !y.shows(series.y[i])) {
        flush();
        continue;
      }
      run.emplace_back(x(series.x[i]), std::clamp(y(series.y[i]), y.to, y.from));
      if (series.points) svg.dot(run.back().first, run.back().second, colour);
    }
    flush();
  }
  return svg.finish();
}

std::string to_svg(const BarPlot& plot) {
  double low = 0, high = 0;
  std::vector<LegendEntry> legend;
  const size_t n = plot.categories.size();
  for (size_t b = 0; b < plot.bars.size(); ++b) {
    const Bars& bars = plot.bars[b];
    const bool ends = bars.low.size() == bars.high.size() && (bars.low.empty() || bars.low.size() == n);
    if (bars.values.size() != n || !ends) {
      throw ArgumentError("to_svg: bars '" + bars.name + "' have " + std::to_string(bars.values.size()) +
                          " values and error bars of " + std::to_string(bars.low.size()) + " and " +
                          std::to_string(bars.high.size()) + ", expected " + std::to_string(n) +
                          " (the categories) or no error bars");
    }
    for (const auto* values : {&bars.values, &bars.low, &bars.high}) {
      for (double v : *values) {
        if (std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
      }
    }
    if (!bars.name.empty()) legend.push_back({bars.name, colour_of(bars.colour, b), false, true});
  }
  for (const Level& level : plot.levels) {
    if (std::isfinite(level.y)) low = std::min(low, level.y), high = std::max(high, level.y);
  }
  Axis y;
  set_range(y, low, high > low ? high + 0.06 * (high - low) : high, 0);
  if (plot.y_range && plot.y_range->second > plot.y_range->first)
    y.low = plot.y_range->first, y.high = plot.y_range->second;

  Svg svg(plot.width, plot.height, plot.title);
  double left = 0, right = 0;
  const double bottom = plot.height - 30;
  y = draw_frame(svg, plot.title, plot.y_label, legend, y, plot.width, bottom, left, right);
  const double group = n ? (right - left) / static_cast<double>(n) : 0;
  const double bar = plot.bars.empty() ? 0 : std::min(48.0, group * 0.8 / static_cast<double>(plot.bars.size()));
  const double zero = y(std::clamp(0.0, y.low, y.high));
  for (size_t c = 0; c < n; ++c) {
    const double middle = left + (static_cast<double>(c) + 0.5) * group;
    svg.text(middle, bottom + 18, plot.categories[c], "middle", kInk);
    for (size_t b = 0; b < plot.bars.size(); ++b) {
      const Bars& bars = plot.bars[b];
      if (!std::isfinite(bars.values[c])) continue;
      const double x = middle + (static_cast<double>(b) - static_cast<double>(plot.bars.size()) / 2) * bar;
      const double end = y(std::clamp(bars.values[c], y.low, y.high));
      svg.rectangle(x + 1, std::min(zero, end), bar - 2, std::abs(end - zero), colour_of(bars.colour, b));
      double above = std::min(zero, end);
      if (!bars.low.empty() && std::isfinite(bars.low[c]) && std::isfinite(bars.high[c])) {
        const double from = y(std::clamp(bars.low[c], y.low, y.high)), to = y(std::clamp(bars.high[c], y.low, y.high));
        svg.line(x + bar / 2, from, x + bar / 2, to, kInk, " stroke-width=\"1.2\"");
        above = std::min(above, to);
      }
      const std::string value = fixed(bars.values[c], plot.decimals);
      if (text_width_of(value) * 10 / 12 <= bar + 6)
        svg.text(x + bar / 2, above - 4, value, "middle", kMuted, " font-size=\"10\"");
    }
  }
  draw_levels(svg, plot.levels, y, left, right);
  return svg.finish();
}

}  // namespace fovea::report
