#include "fovea/report/html.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string_view>

#include "fovea/core/error.h"
#include "fovea/report/canvas.h"
#include "fovea/report/text.h"
#include "phantom.h"

namespace fovea::report {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
const std::string kHostile =
    "<script>alert('x')</script> \"&\" </style></svg><img src=x onerror=y> \xff\xc0\xaf\x01 \xe5\xb7\xa6";

/// The first thing that keeps `xml` from being well-formed: a bare < or &, an attribute without quotes, tags that do
/// not nest; "" if there is none. `void_elements` (HTML: img, meta) need no end.
std::string first_fault(const std::string& xml, const std::vector<std::string>& void_elements = {}) {
  std::vector<std::string> open;
  for (size_t i = 0; i < xml.size(); ++i) {
    const std::string_view rest = std::string_view(xml).substr(i);
    const std::string here = std::string(rest.substr(0, 60));
    if (rest[0] == '&') {
      const auto is = [&](std::string_view entity) { return rest.starts_with(entity); };
      if (!is("&amp;") && !is("&lt;") && !is("&gt;") && !is("&quot;") && !is("&#39;")) return "bare & at: " + here;
    }
    if (rest[0] != '<' || rest.starts_with("<!DOCTYPE html>")) continue;
    const bool closing = rest.starts_with("</");
    size_t k = closing ? 2 : 1;
    std::string name;
    while (k < rest.size() && std::isalnum(static_cast<unsigned char>(rest[k]))) name += rest[k++];
    if (name.empty()) return "bare < at: " + here;
    bool quoted = false, has_value = true;  // attributes: name="value"; no < inside
    for (; k < rest.size() && (quoted || rest[k] != '>'); ++k) {
      if (rest[k] == '<') return "< inside a tag at: " + here;
      if (rest[k] == '"') quoted = !quoted;
      if (rest[k] == '=' && !quoted) has_value = k + 1 < rest.size() && rest[k + 1] == '"';
      if (!has_value) return "attribute without quotes at: " + here;
    }
    if (k == rest.size()) return "tag without end at: " + here;
    const bool empty =
        rest[k - 1] == '/' || std::find(void_elements.begin(), void_elements.end(), name) != void_elements.end();
    if (closing) {
      if (open.empty() || open.back() != name)
        return "</" + name + "> closes " + (open.empty() ? "nothing" : open.back());
      open.pop_back();
    } else if (!empty) {
      open.push_back(name);
    }
    i += k;
  }
  return open.empty() ? "" : "never closed: " + open.back();
}

/// Without what is not markup: pictures and the style sheet.
std::string without_pictures(std::string html) {
  for (size_t at = 0; (at = html.find("base64,", at)) != std::string::npos; ++at) {
    html.erase(at + 7, html.find('"', at) - at - 7);
  }
  const size_t style = html.find("<style>") + 7;
  return html.erase(style, html.find("</style>") - style);
}

HtmlReport sample() {
  const Phantom p = make_phantom({2, 1, 1});
  const auto styles = label_styles({"Right body", "Left body"});
  Scene scene(p.image);
  const LabelLayer labels{Voxels(p.labels), styles, 0.35, true};
  scene.labels.push_back(labels);

  HtmlReport report("Segmentation of a phantom", "One test subject · Fovea 0.1.0 · seed 1");
  report.notice("Research software. Not for diagnosis.", NoticeKind::kWarning);
  const Tile tiles[] = {{"Mean Dice", "0.862", "baseline 0.793", Tone::kGood},
                        {"Surface distance, 95 %", "1.4 mm", "baseline 2.0 mm", Tone::kGood},
                        {"Training", "4 min 10 s", "2 processor cores"}};
  report.tiles(tiles);
  report.heading("Result");
  report.paragraph("Each structure was compared with the reference labels on the original grid of 1 mm.");
  report.table(
      {"Dice coefficient of each structure (1: perfect overlap)",
       {{"Structure", Align::kText}, {"Fovea"}, {"Baseline"}, {"Difference"}, {"Volume, mm³"}},
       {{"Right body", Cell(fixed(0.913, 3)), Cell(fixed(0.928, 3)), Cell("-0.015", Tone::kBad), Cell("8,399")},
        {"Left body", Cell(fixed(0.801, 3)), Cell(fixed(0.689, 3)), Cell("+0.112", Tone::kGood), Cell("1,965")},
        {"Not present", Cell(fixed(kNaN, 3), Tone::kMuted), Cell(fixed(kNaN, 3), Tone::kMuted), Cell("–", Tone::kMuted),
         Cell("0")},
        {"Mean", "0.857", "0.809", Cell("+0.048", Tone::kGood), "10,364"}},
       true});
  BarPlot bars{"Dice by structure", "Dice", {"Right body", "Left body"}, {}, {{"mean of the baseline", 0.809}},
               std::pair{0.0, 1.0}};
  bars.bars.push_back({"Fovea", {0.913, 0.801}, {0.90, 0.77}, {0.92, 0.82}, {}});
  bars.bars.push_back({"Mirrored labels", {0.928, 0.689}, {}, {}, Colour{150, 160, 168}});
  report.figure(bars, "Error bars: lowest and highest of three seeds.");
  report.heading("Pictures");
  report.legend(styles, "Labels");
  std::vector<Image> axial;
  for (const auto& v : slices_through(scene, labels, Plane::kAxial, 4))
    axial.push_back(draw_slice(scene, Plane::kAxial, v));
  report.figure(montage(axial, 4, 4, {0, 0, 0}), "Four axial slices with two labelled bodies",
                "Axial slices, " + to_string(Convention::kRadiological) + ".");
  SliceOptions cross;
  cross.crosshair = true;
  cross.pixel_mm = 0.6;
  report.figure(draw_three_planes(scene, {39, 98, 103}, cross), "Three planes through the right body",
                "Crosshair at the right body.");
  scene.labels.clear();
  scene.heat = HeatLayer{Voxels(p.weights)};
  const HtmlReport::Panel panels[] = {
      {draw_slice(scene, Plane::kAxial, {39, 98, 103}, cross), "Attention, axial", "Head 1"},
      {draw_slice(scene, Plane::kCoronal, {39, 98, 103}, cross), "Attention, coronal", "Head 1, coronal"}};
  report.subheading("Attention of the marked voxel");
  report.gallery(panels, "Weights of the last window layer; the image shows through where they are small.");
  report.heat_legend("0", "largest weight 0.010");
  report.heading("Training");
  LinePlot loss{"Loss", "step", "", {}, {}, false, true, {}};
  loss.series = {{"training", {}, {}, {}}, {"validation", {}, {}, {}, true, true}};
  for (int i = 1; i <= 100; ++i) {
    loss.series[0].x.push_back(10 * i),
        loss.series[0].y.push_back(2 * std::exp(-i / 25.0) + 0.08 + 0.02 * std::sin(i * 1.7));
    if (i % 20 == 0) loss.series[1].x.push_back(10 * i), loss.series[1].y.push_back(2 * std::exp(-i / 25.0) + 0.15);
  }
  report.figure(loss, "Dice and cross-entropy, logarithmic axis.");
  LinePlot dice{"Mean Dice during training",
                "seconds",
                "Dice",
                {{"test", {47, 96, 146, 197, 249}, {0.427, 0.724, 0.858, 0.863, 0.862}, {}, false, true}},
                {{"mirrored labels 0.793", 0.793}}};
  report.figure(dice);
  report.details("Settings and how to repeat this run", [&] {
    const std::pair<std::string, std::string> settings[] = {
        {"Spacing", "2 × 2 × 2 mm"}, {"Patch", "32 × 64 × 32 voxels"}, {"Seed", "1"}};
    report.key_values(settings);
    report.code("fovea train --config configs/demo.json --seed 1\nfovea evaluate runs/demo");
  });
  const std::string limits[] = {"One subject: the figures say nothing about other people.",
                                "Labels were drawn by one group."};
  report.list(limits);
  return report;
}

TEST(Html, SampleReportIsOneWellFormedFileThatFetchesNothing) {
  const std::string html = sample().str();
  EXPECT_EQ(first_fault(without_pictures(html), {"meta", "img"}), "");
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("<link")));
  std::string text = without_pictures(html);
  const std::string name_space = "xmlns=\"http://www.w3.org/2000/svg\"";  // a name, not an address
  for (size_t at = 0; (at = text.find(name_space, at)) != std::string::npos;) text.erase(at, name_space.size());
  EXPECT_THAT(text, Not(HasSubstr("http")));
  EXPECT_THAT(html, HasSubstr("<a href=\"#s2\">Pictures</a>"));
  EXPECT_THAT(html, HasSubstr("<td class=\"number good\">+0.112</td>"));
  // FOVEA_SAMPLE_REPORT=file.html keeps the report to be looked at.
  if (const char* path = std::getenv("FOVEA_SAMPLE_REPORT")) sample().write(path);
}

TEST(Html, TheCheckOfThisTestFindsFaults) {
  for (const char* bad : {"<a><b></a></b>", "<a>", "</a>", "<a x=1></a>", "a & b", "a < b", "<a x=\"<\"></a>", "<a"}) {
    EXPECT_NE(first_fault(bad), "") << bad;
  }
  EXPECT_EQ(first_fault("<a x=\"1\"><b/>&amp;</a>"), "");
}

TEST(Html, EqualCallsGiveEqualBytes) { EXPECT_EQ(sample().str(), sample().str()); }

TEST(Html, NoTextCanBreakOutOfItsPlace) {
  HtmlReport report(kHostile, kHostile);
  for (int i = 0; i < 3; ++i) report.heading(kHostile);
  report.subheading(kHostile);
  report.paragraph(kHostile);
  report.notice(kHostile);
  report.code(kHostile);
  const std::string items[] = {kHostile};
  report.list(items);
  const Tile tiles[] = {{kHostile, kHostile, kHostile}};
  report.tiles(tiles);
  const std::pair<std::string, std::string> pairs[] = {{kHostile, kHostile}};
  report.key_values(pairs);
  report.table({kHostile, {{kHostile}}, {{Cell(kHostile)}}});
  const LabelStyle styles[] = {{1, kHostile, {}}};
  report.legend(styles, kHostile);
  report.heat_legend(kHostile, kHostile);
  report.figure(Image::filled(1, 1, {}), kHostile, kHostile);
  const HtmlReport::Panel panels[] = {{Image::filled(1, 1, {}), kHostile, kHostile}};
  report.gallery(panels, kHostile);
  report.figure(LinePlot{kHostile, kHostile, kHostile, {{kHostile, {1}, {1}}}, {{kHostile, 1}}}, kHostile);
  report.figure(BarPlot{kHostile, kHostile, {kHostile}, {{kHostile, {1}, {}, {}, {}}}, {{kHostile, 1}}}, kHostile);
  report.details(kHostile, [&] { report.paragraph(kHostile); });
  const std::string html = without_pictures(report.str());
  EXPECT_EQ(first_fault(html, {"meta", "img"}), "");
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("onerror=y>")));
  EXPECT_THAT(html, Not(HasSubstr("\xff")));
  EXPECT_THAT(html, HasSubstr("\xe5\xb7\xa6")) << "valid UTF-8 stays";
}

TEST(Html, ATableRowOfAnotherLengthIsAnError) {
  HtmlReport report("t");
  try {
    report.table({"Scores", {{"a"}, {"b"}}, {{"1"}}});
    FAIL() << "took a short row";
  } catch (const ArgumentError& e) {
    EXPECT_STREQ(e.what(), "HtmlReport::table: a row of 'Scores' has 1 cells, expected 2 (its columns)");
  }
}

TEST(Svg, StaysWellFormedForEmptyConstantAndNonFiniteData) {
  const double inf = std::numeric_limits<double>::infinity();
  for (bool log : {false, true}) {
    for (const std::vector<double>& y : {std::vector<double>{},
                                         {0},
                                         {5, 5, 5},
                                         {kNaN, inf, -inf},
                                         {1, kNaN, 3},
                                         {-1, 0, 1},
                                         {1e-300, 1e300},
                                         {-1e308, 1e308}}) {
      LinePlot plot{"t", "x", "y", {{"s", {}, y}}, {{"level", y.empty() ? kNaN : y[0]}}, log, log, {}};
      for (size_t i = 0; i < y.size(); ++i) plot.series[0].x.push_back(static_cast<double>(i));
      const std::string svg = to_svg(plot);
      EXPECT_EQ(first_fault(svg), "");
      EXPECT_THAT(svg, Not(HasSubstr("nan")));
      EXPECT_THAT(svg, Not(HasSubstr("inf")));
      BarPlot bars{"t", "y", {}, {{"b", y, {}, {}, {}}}, {}};
      for (size_t i = 0; i < y.size(); ++i) bars.categories.push_back(std::to_string(i));
      EXPECT_EQ(first_fault(to_svg(bars)), "");
      EXPECT_THAT(to_svg(bars), Not(HasSubstr("nan")));
    }
  }
}

TEST(Svg, AGapSplitsTheCurveAndALoneValueIsADot) {
  const LinePlot plot{"t", "x", "y", {{"s", {0, 1, 2, 3, 4, 5}, {1, 2, kNaN, 3, kNaN, 1}}}, {}};
  const std::string svg = to_svg(plot);
  const auto count = [&](const std::string& what) {
    size_t n = 0;
    for (size_t at = 0; (at = svg.find(what, at)) != std::string::npos; ++at) ++n;
    return n;
  };
  EXPECT_EQ(count("<polyline"), 1u);
  EXPECT_EQ(count("<circle"), 2u);
}

TEST(Svg, RefusesSeriesOfUnequalLengths) {
  EXPECT_THROW(to_svg(LinePlot{"t", "", "", {{"s", {1, 2}, {1}}}, {}}), ArgumentError);
  EXPECT_THROW(to_svg(BarPlot{"t", "", {"a"}, {{"b", {1, 2}, {}, {}, {}}}, {}}), ArgumentError);
}

TEST(Svg, TicksAreRoundNumbersWithinTheRange) {
  EXPECT_THAT(round_ticks(0, 1, 5), testing::ElementsAre(0, 0.2, 0.4, 0.6, 0.8, 1.0));
  EXPECT_THAT(round_ticks(-3, 12, 4), testing::ElementsAre(0, 5, 10));
  EXPECT_THAT(round_ticks(0.0021, 0.0049, 3), testing::ElementsAre(0.003, 0.004));
  EXPECT_THAT(round_ticks(2, 2, 3), testing::ElementsAre(2));
  const std::string svg = to_svg(LinePlot{"", "", "", {{"", {0, 1}, {0.3, 40}}}, {}, false, true});
  for (const char* tick : {">0.5<", ">1<", ">2<", ">10<", ">20<"}) EXPECT_THAT(svg, HasSubstr(tick));
}

TEST(Text, NumbersAreTheSameInEveryLocaleAndNeverMinusZero) {
  EXPECT_EQ(fixed(0.79349, 3), "0.793");
  EXPECT_EQ(fixed(-0.0004, 2), "0.00");
  EXPECT_EQ(fixed(-1.5, 1), "-1.5");
  EXPECT_EQ(fixed(kNaN, 2), "–");
  EXPECT_EQ(compact(1000), "1000");
  EXPECT_EQ(compact(0.1 + 0.2), "0.3");
  EXPECT_EQ(compact(-0.0), "0");
}

}  // namespace
}  // namespace fovea::report
