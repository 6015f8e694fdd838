#include "fovea/report/figure.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "fovea/core/error.h"
#include "fovea/report/png.h"
#include "fovea/report/svg.h"
#include "fovea/report/text.h"

namespace fovea::report {

namespace {
constexpr double kTitle = 32;  // room for a title

void draw_title(Svg& svg, const std::string& title) {
  if (!title.empty()) svg.text(12, 20, title, "start", kInk, " font-size=\"14\" font-weight=\"600\"");
}

std::string draw(const LinePlot& plot) { return to_svg(plot); }
std::string draw(const BarPlot& plot) { return to_svg(plot); }

std::string draw(const HeatMap& map) {
  if (map.rows < 1 || map.columns < 1 || map.values.size() != size_t(map.rows) * map.columns)
    throw ArgumentError("to_svg: heat map '" + map.title + "' has " + std::to_string(map.values.size()) +
                        " values, expected " + std::to_string(map.rows) + " x " + std::to_string(map.columns));
  double low = 0, high = 0;
  for (const double v : map.values)
    if (std::isfinite(v)) high = std::max(high, v);
  if (map.range) std::tie(low, high) = *map.range;
  Svg svg(map.width, map.height, map.title);
  draw_title(svg, map.title);
  double left = 12, top = map.title.empty() ? 12 : kTitle;
  for (const std::string& name : map.row_names) left = std::max(left, 18 + text_width_of(name));
  if (!map.y_label.empty()) svg.text(12, top += 12, map.y_label, "start", kMuted), top += 8;
  if (!map.column_names.empty()) top += 16;
  const double bottom = map.height - (map.x_label.empty() ? 10 : 26), right = map.width - 12;
  const double wide = (right - left) / map.columns, tall = (bottom - top) / map.rows;
  for (int c = 0; c < map.columns && c < int(map.column_names.size()); ++c)
    svg.text(left + (c + 0.5) * wide, top - 6, map.column_names[c], "middle", kMuted);
  for (int r = 0; r < map.rows; ++r) {
    if (r < int(map.row_names.size())) svg.text(left - 6, top + (r + 0.5) * tall + 4, map.row_names[r], "end", kMuted);
    for (int c = 0; c < map.columns; ++c) {
      const double value = map.values[size_t(r) * map.columns + c];
      if (!std::isfinite(value)) continue;
      const double t = high > low ? std::clamp((value - low) / (high - low), 0.0, 1.0) : 0;
      // Edges on whole pixels: no seams between cells.
      svg.rectangle(left + c * wide, top + r * tall, wide, tall, to_hex(heat_colour(t)),
                    " shape-rendering=\"crispEdges\"");
      if (map.decimals)
        svg.text(left + (c + 0.5) * wide, top + (r + 0.5) * tall + 4, fixed(value, *map.decimals), "middle",
                 t > 0.55 ? "#1c2126" : "#ffffff");
    }
  }
  if (map.marked) svg.frame(left + map.marked->second * wide, top + map.marked->first * tall, wide, tall, "#00a37a");
  if (!map.x_label.empty()) svg.text((left + right) / 2, map.height - 8, map.x_label, "middle", kMuted);
  return svg.finish();
}

std::string draw(const Raster& raster) {
  Svg svg(raster.width, raster.height, raster.title);
  draw_title(svg, raster.title);
  const double top = raster.title.empty() ? 8 : kTitle, room_x = raster.width - 24, room_y = raster.height - top - 8;
  const double scale = std::min(room_x / double(raster.image.width), room_y / double(raster.image.height));
  svg.image(12, top, scale * double(raster.image.width), scale * double(raster.image.height),
            png_data_uri(raster.image));
  return svg.finish();
}
}  // namespace

std::string to_svg(const std::vector<Panel>& panels, int columns) {
  if (panels.empty() || columns < 1) throw ArgumentError("to_svg: a figure without panels or columns");
  // Each row is as tall as its tallest panel.
  double width = 0, height = 0, x = 0, row = 0;
  std::vector<std::pair<double, double>> places;
  for (size_t i = 0; i < panels.size(); ++i) {
    if (i > 0 && i % size_t(columns) == 0) height += row, x = row = 0;
    places.emplace_back(x, height);
    std::visit([&](const auto& panel) { x += panel.width, row = std::max<double>(row, panel.height); }, panels[i]);
    width = std::max(width, x);
  }
  height += row;
  const std::string title = std::visit([](const auto& panel) { return panel.title; }, panels.front());
  Svg svg(int(width), int(height), title);
  svg.rectangle(0, 0, width, height, "var(--page, #fff)");
  for (size_t i = 0; i < panels.size(); ++i)
    svg.nested(places[i].first, places[i].second, std::visit([](const auto& panel) { return draw(panel); }, panels[i]));
  return svg.finish();
}

}  // namespace fovea::report
