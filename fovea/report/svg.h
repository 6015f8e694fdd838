#pragma once
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "fovea/report/text.h"

// What the drawings of this layer are written with.
namespace fovea::report {

inline constexpr double kLetter = 6.4;  // mean width of a letter at 12 px, for layout only
inline constexpr const char* kInk = "var(--ink, #1c2126)";
inline constexpr const char* kMuted = "var(--muted, #5b6670)";
inline constexpr const char* kRule = "var(--rule, #d9dee3)";

inline double text_width_of(const std::string& s) {
  // UTF-8 continuation bytes take no room.
  const auto letters =
      std::count_if(s.begin(), s.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
  return kLetter * static_cast<double>(letters);
}

/// Builds an SVG element by element; coordinates are rounded to 0.01, so that equal plots are equal bytes.
class Svg {
 public:
  Svg(int width, int height, const std::string& title) {
    out_ = "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 " + std::to_string(width) + " " +
           std::to_string(height) + "\" width=\"" + std::to_string(width) + "\" height=\"" + std::to_string(height) +
           "\" font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"12\">\n<title>" +
           escape(title) + "</title>\n";
  }
  void line(double x0, double y0, double x1, double y1, const std::string& stroke, const std::string& more = "") {
    out_ += "<line x1=\"" + at(x0) + "\" y1=\"" + at(y0) + "\" x2=\"" + at(x1) + "\" y2=\"" + at(y1) + "\" stroke=\"" +
            stroke + "\"" + more + "/>\n";
  }
  void rectangle(double x, double y, double width, double height, const std::string& fill,
                 const std::string& more = "") {
    out_ += "<rect x=\"" + at(x) + "\" y=\"" + at(y) + "\" width=\"" + at(width) + "\" height=\"" + at(height) +
            "\" fill=\"" + fill + "\"" + more + "/>\n";
  }
  void frame(double x, double y, double width, double height, const std::string& stroke) {
    out_ += "<rect x=\"" + at(x) + "\" y=\"" + at(y) + "\" width=\"" + at(width) + "\" height=\"" + at(height) +
            "\" fill=\"none\" stroke-width=\"2.5\" stroke=\"" + stroke + "\"/>\n";
  }
  void dot(double x, double y, const std::string& fill) {
    out_ += "<circle cx=\"" + at(x) + "\" cy=\"" + at(y) + "\" r=\"2.5\" fill=\"" + fill + "\"/>\n";
  }
  void polyline(const std::vector<std::pair<double, double>>& points, const std::string& stroke, bool dashed) {
    out_ += "<polyline fill=\"none\" stroke-width=\"1.8\" stroke-linejoin=\"round\" stroke=\"" + stroke + "\"";
    if (dashed) out_ += " stroke-dasharray=\"5 4\"";
    out_ += " points=\"";
    for (const auto& [x, y] : points) out_ += (&x == &points[0].first ? "" : " ") + at(x) + "," + at(y);
    out_ += "\"/>\n";
  }
  void text(double x, double y, const std::string& s, const char* anchor, const char* fill,
            const std::string& more = "") {
    out_ += "<text x=\"" + at(x) + "\" y=\"" + at(y) + "\" text-anchor=\"" + anchor + "\" fill=\"" + fill + "\"" +
            more + ">" + escape(s) + "</text>\n";
  }
  /// What another Svg finished, with its top left at (x, y).
  void nested(double x, double y, const std::string& svg) {
    out_ += "<g transform=\"translate(" + at(x) + " " + at(y) + ")\">" + svg + "</g>\n";
  }
  /// A raster picture given as a data URI, its pixels drawn as they are.
  void image(double x, double y, double width, double height, const std::string& data_uri) {
    out_ += "<image x=\"" + at(x) + "\" y=\"" + at(y) + "\" width=\"" + at(width) + "\" height=\"" + at(height) +
            "\" preserveAspectRatio=\"none\" style=\"image-rendering:pixelated\" href=\"" + data_uri + "\"/>\n";
  }
  std::string finish() { return out_ + "</svg>\n"; }

 private:
  static std::string at(double v) {
    std::string s = fixed(std::clamp(v, -1e6, 1e6), 2);
    s.erase(s.find_last_not_of('0') + 1);
    if (s.back() == '.') s.pop_back();
    return s;
  }
  std::string out_;
};

}  // namespace fovea::report
