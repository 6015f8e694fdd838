#include "fovea/report/figure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "fovea/core/error.h"

namespace fovea::report {
namespace {

using testing::HasSubstr;

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = 0; (at = text.find(part, at)) != text.npos; at += part.size()) ++n;
  return n;
}

HeatMap two_by_three() {
  HeatMap map{"weights <of> q"};
  map.rows = 2, map.columns = 3, map.values = {0.5, 0.25, NAN, 0, 0, 1}, map.decimals = 2;
  map.row_names = {"q1", "q2"}, map.column_names = {"k1", "k2", "k3"};
  return map;
}

TEST(Figure, DrawsACellAValueAndLeavesEmptyCellsOut) {
  HeatMap map = two_by_three();
  map.marked = {1, 2};
  const std::string svg = to_svg({map}, 1);
  EXPECT_EQ(count(svg, "<rect "), 1 + 5 + 1);  // background, cells, frame
  for (const char* text : {">0.50<", ">1.00<", ">q2<", ">k3<", "weights &lt;of&gt; q"})
    EXPECT_THAT(svg, HasSubstr(text));
}

TEST(Figure, PutsPanelsSideBySideInRows) {
  HeatMap small = two_by_three(), tall = small;
  small.width = 100, small.height = 80, tall.width = 150, tall.height = 120;
  const std::string svg = to_svg({small, tall, small}, 2);
  EXPECT_THAT(svg, HasSubstr("viewBox=\"0 0 250 200\""));
  EXPECT_THAT(svg, HasSubstr("translate(100 0)"));
  EXPECT_THAT(svg, HasSubstr("translate(0 120)"));
}

TEST(Figure, KeepsPixelsSquare) {
  Raster raster{"slice", Image::filled(10, 40, {1, 2, 3})};
  raster.width = 424, raster.height = 300;
  const std::string svg = to_svg({raster}, 1);
  EXPECT_THAT(svg, HasSubstr("width=\"400\" height=\"100\" preserveAspectRatio"));
  EXPECT_THAT(svg, HasSubstr("href=\"data:image/png;base64,"));
}

TEST(Figure, RefusesWrongSizes) {
  HeatMap map = two_by_three();
  map.values.pop_back();
  EXPECT_THROW(to_svg({map}, 1), ArgumentError);
  EXPECT_THROW(to_svg(std::vector<Panel>{}, 1), ArgumentError);
  EXPECT_THROW(to_svg({two_by_three()}, 0), ArgumentError);
}

}  // namespace
}  // namespace fovea::report
